-- list_of_book: a customer's purchases of one book, newest first.
-- $1 to $7 as list   $8 book_id text
-- Result: as get.
SELECT
    p.request_id, p.status, p.failure_reason, p.book_id, p.currency, p.max_price_minor, p.created_at, p.offer,
    p.stage, p.event_seq, p.accepted_offer_of, p.cancel_requested_at IS NOT NULL AS cancel_requested, a.seller_id,
    a.order_id, m.captured_minor, m.refunded_minor,
    (SELECT n.request_id FROM orchestrator.purchase n WHERE n.accepted_offer_of = p.request_id) AS offer_accepted_by
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.customer_id = $1 AND p.book_id = $8 AND p.status = ANY ($2::text[])
    AND p.created_at >= coalesce($3, '-infinity'::timestamptz)
    AND p.created_at < coalesce($4, 'infinity'::timestamptz)
    AND (p.created_at, p.request_id) <
        (coalesce($5, 'infinity'::timestamptz), coalesce($6, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
ORDER BY p.created_at DESC, p.request_id DESC
LIMIT $7
