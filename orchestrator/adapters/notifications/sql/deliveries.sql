-- deliveries: what was sent or tried for a customer, the newest first.
-- $1 customer_id text   $2 request_id uuid or NULL (of all)   $3 before uuid or NULL (only those made before it)
-- $4 limit integer
-- Result: delivery_id, message_id, request_id, type, receiver, state, tries, last_status, last_error, last_try_at,
-- next_try_at.
SELECT
    delivery_id, message_id, request_id, type, receiver, state, tries, last_status, last_error, last_try_at, next_try_at
FROM orchestrator.delivery
WHERE customer_id = $1 AND ($2::uuid IS NULL OR request_id = $2)
    AND delivery_id < coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
ORDER BY delivery_id DESC
LIMIT $4
