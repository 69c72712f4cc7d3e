-- spread: makes the deliveries of a message, once, whoever else is at it.
-- $1 message_id uuid   $2 delivery_ids uuid[]   $3 lanes uuid[]   $4 receivers text[]   $5 contents text[]
-- Result: nothing.
WITH message AS (
    UPDATE orchestrator.outbox SET spread_at = now()
    WHERE message_id = $1 AND spread_at IS NULL
    RETURNING message_id, request_id, customer_id, kind
)
INSERT INTO orchestrator.delivery
    (delivery_id, message_id, request_id, customer_id, type, lane, receiver, content, next_try_at)
SELECT
    d.delivery_id, m.message_id, m.request_id, m.customer_id, 'purchase_request.' || m.kind, d.lane, d.receiver, d.content,
    now()
FROM message m
CROSS JOIN unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[]) AS d (delivery_id, lane, receiver, content)
