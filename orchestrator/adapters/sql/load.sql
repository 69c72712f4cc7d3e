-- load: a claimed purchase with all that its worker needs.
-- $1 request_id uuid   $2 epoch integer
-- Result: one row, or none when another worker has claimed it since; age_s is the purchase's age in seconds, claimed_for_s
-- how long ago it was claimed first since its last commit, NULL when it was not since, flag
-- the number of the newest of its flags that are open, or NULL, observations a JSON list of those that no worker has acted on, or NULL.
SELECT
    p.request_id, p.customer_id, p.book_id, p.currency, p.max_price_minor, p.conditions, p.created_at, p.traceparent,
    p.stage, p.resume_stage, p.tries, p.status, p.failure_reason, p.offer, p.plan, p.epoch, p.event_seq, p.token_sealed,
    p.key_id, p.claims, p.observed_seq, p.accepted_offer_of, p.cancel_requested_at IS NOT NULL AS cancel_requested,
    extract(epoch FROM clock_timestamp() - p.created_at)::double precision AS age_s,
    extract(epoch FROM clock_timestamp() - p.claimed_since)::double precision AS claimed_for_s,
    (
        SELECT max(f.number) FROM orchestrator.flag f WHERE f.request_id = p.request_id AND f.resolved_at IS NULL
    ) AS flag,
    (
        SELECT jsonb_agg(jsonb_build_object('number', o.number, 'by', o.observed_by, 'kind', o.kind, 'body', o.body)
            ORDER BY o.number)
        FROM orchestrator.observation o WHERE o.request_id = p.request_id AND o.number > p.observed_seq
    ) AS observations,
    m.state AS payment_state, m.provider_id, m.capture_before, m.captured_minor, m.refunded_minor,
    a.number, a.seller_id, a.key, a.quote_id, a.quoted_minor, a.with_hold, a.not_after, a.agreed_minor, a.hold_id,
    a.order_id, a.charged_minor, a.outcome
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.request_id = $1 AND p.epoch = $2
