-- load: a claimed purchase with all that its worker needs.
-- $1 request_id uuid   $2 epoch integer
-- Result: one row, or none when another worker has claimed it since; age_s is the purchase's age in seconds.
SELECT
    p.request_id, p.customer_id, p.book_id, p.currency, p.max_price_minor, p.conditions, p.created_at, p.traceparent,
    p.stage, p.tries, p.status, p.failure_reason, p.offer, p.plan, p.epoch, p.event_seq, p.token_sealed, p.key_id,
    extract(epoch FROM clock_timestamp() - p.created_at)::double precision AS age_s,
    m.state AS payment_state, m.provider_id, m.captured_minor,
    a.number, a.seller_id, a.key, a.quote_id, a.quoted_minor, a.with_hold, a.not_after, a.agreed_minor, a.hold_id,
    a.order_id, a.charged_minor, a.outcome
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.request_id = $1 AND p.epoch = $2
