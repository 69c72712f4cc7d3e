-- get: a purchase as its customer sees it.
-- $1 request_id uuid   $2 customer_id text
-- Result: one row, or none when this customer has none with this id.
SELECT
    p.request_id, p.status, p.failure_reason, p.book_id, p.currency, p.max_price_minor, p.created_at, p.offer,
    p.stage, p.event_seq, a.seller_id, a.order_id, m.captured_minor
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.request_id = $1 AND p.customer_id = $2
