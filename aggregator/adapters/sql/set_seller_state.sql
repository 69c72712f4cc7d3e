-- set_seller_state: changes the state of sellers, under the lock of lock_registry; those that have it are left alone.
-- $1 seller ids, text[].
-- $2 state, text.
-- $3 revision that those that change get, bigint.
-- Result: seller_id of each that was changed.
UPDATE aggregator.seller SET state = $2, revision = $3
WHERE seller_id = ANY($1::text[]) AND state <> $2
RETURNING seller_id
