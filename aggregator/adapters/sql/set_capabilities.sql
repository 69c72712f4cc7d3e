-- set_capabilities: what a seller can do, unless it was changed since it was asked; under the lock of lock_registry.
-- $1 seller_id text
-- $2 capabilities text (JSON)
-- $3 seen bigint (the revision of the seller that was asked)
-- $4 revision bigint (that it gets)
-- Result: seller_id, if it was changed.
UPDATE aggregator.seller SET capabilities = $2::text::jsonb, revision = $4
WHERE seller_id = $1 AND revision = $3::bigint AND capabilities IS DISTINCT FROM $2::text::jsonb
RETURNING seller_id
