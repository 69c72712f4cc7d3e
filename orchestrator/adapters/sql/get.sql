-- get: a purchase as its customer sees it.
-- $1 request_id uuid   $2 customer_id text
-- Result: one row, or none when this customer has none with this id.
SELECT
    p.request_id, p.status, p.failure_reason, p.book_id, p.currency, p.max_price_minor, p.created_at, p.offer,
    p.stage, p.event_seq, p.accepted_offer_of, p.cancel_requested_at IS NOT NULL AS cancel_requested, a.seller_id,
    a.order_id, m.captured_minor, m.refunded_minor,
    (SELECT n.request_id FROM orchestrator.purchase n WHERE n.accepted_offer_of = p.request_id) AS offer_accepted_by
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.request_id = $1 AND p.customer_id = $2
