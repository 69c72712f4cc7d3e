-- attempts_of: all tries of a purchase to buy, the first first.
-- $1 request_id uuid
-- Result: the columns of an attempt, begun_at, and the currency of the purchase.
SELECT
    a.number, a.seller_id, a.key, a.quote_id, a.quoted_minor, a.with_hold, a.not_after, a.agreed_minor, a.hold_id,
    a.order_id, a.charged_minor, a.outcome, a.begun_at, p.currency
FROM orchestrator.attempt a
JOIN orchestrator.purchase p USING (request_id)
WHERE a.request_id = $1
ORDER BY a.number
