-- What became of some purchases: the request, its payment and the sellers that were tried.
-- $1 uuid[]: the purchases
-- One row an attempt, and one for a purchase without any; amounts in minor units of the currency.
SELECT
    left(purchase.request_id::text, 8) || '…' AS request,
    purchase.book_id,
    purchase.status,
    purchase.max_price_minor,
    payment.state AS payment,
    payment.captured_minor,
    attempt.seller_id,
    attempt.outcome,
    attempt.charged_minor
FROM orchestrator.purchase
JOIN orchestrator.payment USING (request_id)
LEFT JOIN orchestrator.attempt USING (request_id)
WHERE purchase.request_id = ANY ($1)
ORDER BY purchase.created_at, attempt.number
