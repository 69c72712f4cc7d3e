-- forget: removes deliveries that are over and old, and secrets that are not in force any more.
-- $1 days integer (age)   $2 limit integer
-- Result: nothing.
WITH secrets AS (
    UPDATE orchestrator.webhook_endpoint
    SET previous_key_id = NULL, previous_sealed = NULL, previous_until = NULL
    WHERE previous_until <= now()
)
DELETE FROM orchestrator.delivery
WHERE delivery_id IN (
    SELECT d.delivery_id FROM orchestrator.delivery d
    WHERE d.next_try_at IS NULL AND d.created_at < now() - $1 * interval '1 day'
    ORDER BY d.created_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
