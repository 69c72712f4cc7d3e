-- skip_unheard: marks messages as spread for which there is nobody to tell.
-- $1 with_email boolean (whether e-mail is sent at all)   $2 limit integer
-- Result: nothing.
UPDATE orchestrator.outbox
SET spread_at = now()
WHERE message_id IN (
    SELECT o.message_id FROM orchestrator.outbox o
    WHERE o.spread_at IS NULL AND o.spread_after <= now()
        AND NOT EXISTS (
            SELECT FROM orchestrator.webhook_endpoint e
            WHERE e.customer_id = o.customer_id AND e.disabled_reason IS NULL
        )
        AND NOT ($1 AND EXISTS (SELECT FROM orchestrator.notification_email m WHERE m.customer_id = o.customer_id))
    ORDER BY o.spread_after LIMIT $2 FOR UPDATE OF o SKIP LOCKED
)
