-- claim: takes due purchases for a worker, at most $4 of one customer, those of many customers before many of one.
-- $1 owner integer (the worker)   $2 room integer (most purchases)   $3 lease double precision (seconds)
-- $4 per_customer integer
-- Result: request_id, epoch of each that was taken.
WITH RECURSIVE customer (customer_id) AS (
    -- a walk from customer to customer along the index purchase_due, a probe each
    (SELECT customer_id FROM orchestrator.purchase WHERE due_at IS NOT NULL ORDER BY customer_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT p.customer_id FROM orchestrator.purchase p
        WHERE p.due_at IS NOT NULL AND p.customer_id > c.customer_id ORDER BY p.customer_id LIMIT 1
    )
    FROM customer c WHERE c.customer_id IS NOT NULL
),
taken AS (
    SELECT due.request_id
    FROM customer c
    CROSS JOIN LATERAL (
        SELECT p.request_id, p.due_at FROM orchestrator.purchase p
        WHERE p.customer_id = c.customer_id AND p.due_at <= now()
        ORDER BY p.due_at LIMIT $4 FOR UPDATE SKIP LOCKED
    ) due
    ORDER BY due.due_at LIMIT $2
)
UPDATE orchestrator.purchase p
SET epoch = p.epoch + 1, owner = $1, due_at = now() + $3 * interval '1 second'
FROM taken t
WHERE p.request_id = t.request_id
RETURNING p.request_id, p.epoch
