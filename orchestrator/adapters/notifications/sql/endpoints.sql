-- endpoints: a customer's endpoints, the oldest first.
-- $1 customer_id text
-- Result: endpoint_id, url, disabled_reason (NULL while it is enabled), created_at.
SELECT endpoint_id, url, disabled_reason, created_at
FROM orchestrator.webhook_endpoint
WHERE customer_id = $1
ORDER BY created_at, endpoint_id
