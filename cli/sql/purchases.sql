-- Some purchases: the request, its payment, the sellers that were tried.
-- $1 uuid[]: which purchases
-- One row an attempt, and one for a purchase without any; amounts in minor units (cents).
SELECT
    right(purchase.request_id::text, 8) AS request,
    purchase.book_id,
    purchase.status,
    purchase.max_price_minor AS max,
    payment.state AS payment,
    payment.captured_minor AS captured,
    attempt.seller_id,
    attempt.outcome,
    attempt.charged_minor AS charged
FROM orchestrator.purchase
JOIN orchestrator.payment USING (request_id)
LEFT JOIN orchestrator.attempt USING (request_id)
WHERE purchase.request_id = ANY ($1)
ORDER BY purchase.created_at, attempt.number
