-- forget: removes deliveries that are over and old, secrets that are not in force any more, and codes of old.
-- $1 days integer (age)   $2 limit integer   $3 code_age double precision (seconds)
-- Result: nothing.
WITH secrets AS (
    UPDATE orchestrator.webhook_endpoint
    SET previous_key_id = NULL, previous_sealed = NULL, previous_until = NULL
    WHERE previous_until <= now()
),
codes AS (
    DELETE FROM orchestrator.email_code WHERE sent_at <= now() - $3 * interval '1 second'
)
DELETE FROM orchestrator.delivery
WHERE delivery_id IN (
    SELECT d.delivery_id FROM orchestrator.delivery d
    WHERE d.next_try_at IS NULL AND d.created_at < now() - $1 * interval '1 day'
    ORDER BY d.created_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
