-- open: a page of the purchases that something is left to do for, or that an open flag is about, oldest first.
-- $1 until timestamptz: when they were committed at the latest   $2 created_at timestamptz, $3 request_id uuid of the
-- last one of the page before   $4 limit integer
-- Result: as of booked.
WITH open AS (
    SELECT p.created_at, p.request_id FROM orchestrator.purchase p WHERE p.due_at IS NOT NULL
    UNION
    SELECT p.created_at, p.request_id
    FROM orchestrator.flag f JOIN orchestrator.purchase p USING (request_id) WHERE f.resolved_at IS NULL
),
page AS (
    SELECT o.request_id FROM open o
    WHERE o.created_at < $1 AND (o.created_at, o.request_id) > ($2, $3)
    ORDER BY o.created_at, o.request_id
    LIMIT $4
)
SELECT
    request_id, created_at, currency, status, stage, due_at, attempt_number, payment_state, provider_id,
    authorized_minor, captured_minor, refunded_minor, releases, attempts, flags
FROM orchestrator.booked
WHERE request_id IN (SELECT page.request_id FROM page)
ORDER BY created_at, request_id
