-- list: a customer's purchases, newest first. Each status has its part of the index, of which the newest are merged.
-- $1 customer_id text   $2 statuses text[]   $3 made at this time or later, timestamptz or NULL
-- $4 made before this time, timestamptz or NULL
-- $5, $6 created_at timestamptz and request_id uuid of the purchase behind which the page begins, or NULL   $7 limit integer
-- Result: as get.
SELECT
    p.request_id, p.status, p.failure_reason, p.book_id, p.currency, p.max_price_minor, p.created_at, p.offer,
    p.stage, p.event_seq, p.accepted_offer_of, p.cancel_requested_at IS NOT NULL AS cancel_requested, a.seller_id,
    a.order_id, m.captured_minor, m.refunded_minor,
    (SELECT n.request_id FROM orchestrator.purchase n WHERE n.accepted_offer_of = p.request_id) AS offer_accepted_by
FROM (
    SELECT newest.request_id
    FROM unnest($2::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        SELECT q.request_id, q.created_at
        FROM orchestrator.purchase q
        WHERE q.customer_id = $1 AND q.status = wanted.status
            AND q.created_at >= coalesce($3, '-infinity'::timestamptz)
            AND q.created_at < coalesce($4, 'infinity'::timestamptz)
            AND (q.created_at, q.request_id) <
                (coalesce($5, 'infinity'::timestamptz), coalesce($6, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
        ORDER BY q.created_at DESC, q.request_id DESC
        LIMIT $7
    ) AS newest
    ORDER BY newest.created_at DESC, newest.request_id DESC
    LIMIT $7
) AS found
JOIN orchestrator.purchase p USING (request_id)
JOIN orchestrator.payment m USING (request_id)
LEFT JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
ORDER BY p.created_at DESC, p.request_id DESC
