-- rotate_secret: gives an endpoint another secret; the present one stays in force besides for a while.
-- $1 endpoint_id uuid   $2 customer_id text   $3 key_id text   $4 secret_sealed bytea
-- $5 overlap double precision (seconds)
-- Result: one row, or none when this customer has none with this id.
UPDATE orchestrator.webhook_endpoint
SET previous_key_id = key_id, previous_sealed = secret_sealed, previous_until = now() + $5 * interval '1 second',
    key_id = $3, secret_sealed = $4
WHERE endpoint_id = $1 AND customer_id = $2
RETURNING endpoint_id
