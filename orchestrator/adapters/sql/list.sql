-- list: a customer's purchases, newest first.
-- $1 customer_id text   $2 before uuid or NULL (only those made before it)   $3 limit integer
-- Result: as get.
SELECT
    p.request_id, p.status, p.failure_reason, p.book_id, p.currency, p.max_price_minor, p.created_at, p.offer,
    p.stage, p.event_seq, p.accepted_offer_of, p.cancel_requested_at IS NOT NULL AS cancel_requested, a.seller_id,
    a.order_id, m.captured_minor, m.refunded_minor,
    (SELECT n.request_id FROM orchestrator.purchase n WHERE n.accepted_offer_of = p.request_id) AS offer_accepted_by
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.customer_id = $1 AND p.request_id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
ORDER BY p.request_id DESC
LIMIT $3
