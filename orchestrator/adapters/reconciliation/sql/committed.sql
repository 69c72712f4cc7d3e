-- committed: a page of the purchases that were committed in a period, oldest first.
-- $1 since timestamptz   $2 until timestamptz   $3 created_at timestamptz, $4 request_id uuid of the last one of the
-- page before   $5 limit integer
-- Result: as of booked.
SELECT
    request_id, created_at, currency, status, stage, due_at, attempt_number, payment_state, provider_id,
    authorized_minor, captured_minor, refunded_minor, releases, attempts, flags
FROM orchestrator.booked
WHERE created_at >= $1 AND created_at < $2 AND (created_at, request_id) > ($3, $4)
ORDER BY created_at, request_id
LIMIT $5
