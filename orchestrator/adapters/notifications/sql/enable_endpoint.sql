-- enable_endpoint: has an endpoint sent to again.
-- $1 endpoint_id uuid   $2 customer_id text
-- Result: as endpoints; none when this customer has none with this id.
UPDATE orchestrator.webhook_endpoint
SET disabled_reason = NULL, failures = CASE WHEN disabled_reason IS NULL THEN failures ELSE 0 END
WHERE endpoint_id = $1 AND customer_id = $2
RETURNING endpoint_id, url, disabled_reason, created_at
