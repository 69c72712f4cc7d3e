-- add_endpoint: registers an endpoint, unless its customer has as many as may be.
-- $1 endpoint_id uuid   $2 customer_id text   $3 url text   $4 key_id text   $5 secret_sealed bytea   $6 most integer
-- Result: as endpoints; none when there are too many.
INSERT INTO orchestrator.webhook_endpoint (endpoint_id, customer_id, url, key_id, secret_sealed)
SELECT $1, $2, $3, $4, $5
WHERE (SELECT count(*) FROM orchestrator.webhook_endpoint WHERE customer_id = $2) < $6
RETURNING endpoint_id, url, disabled_reason, created_at
