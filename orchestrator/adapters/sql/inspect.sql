-- inspect: whose a purchase is, where it stands, and its payment.
-- $1 request_id uuid
-- Result: one row, or none.
SELECT
    p.customer_id, p.stage, p.tries, p.epoch, p.due_at, p.currency, m.state, m.provider_id, m.authorized_minor,
    m.captured_minor, m.refunded_minor, m.capture_before
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
WHERE p.request_id = $1
