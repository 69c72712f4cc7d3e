-- to_spread: messages that have no deliveries yet, and whom they are for.
-- $1 limit integer
-- Result: message_id, request_id, customer_id, kind, created_at, endpoint_ids uuid[], urls text[] (of the same order),
-- email (NULL without one).
SELECT
    o.message_id, o.request_id, o.customer_id, o.kind, o.created_at,
    ARRAY(
        SELECT e.endpoint_id FROM orchestrator.webhook_endpoint e
        WHERE e.customer_id = o.customer_id AND e.disabled_reason IS NULL ORDER BY e.endpoint_id
    ) AS endpoint_ids,
    ARRAY(
        SELECT e.url FROM orchestrator.webhook_endpoint e
        WHERE e.customer_id = o.customer_id AND e.disabled_reason IS NULL ORDER BY e.endpoint_id
    ) AS urls,
    (SELECT m.email FROM orchestrator.notification_email m WHERE m.customer_id = o.customer_id) AS email
FROM orchestrator.outbox o
WHERE o.spread_at IS NULL AND o.spread_after <= now()
ORDER BY o.spread_after
LIMIT $1
