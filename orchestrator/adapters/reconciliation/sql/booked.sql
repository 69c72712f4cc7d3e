-- booked: purchases with all that is compared.
-- $1 uuid[]: which
-- Result: request_id, created_at, currency, status, stage, due_at, attempt_number, payment_state, provider_id,
-- authorized_minor, captured_minor, refunded_minor, releases, attempts, flags (the last three JSON lists) of those
-- that there are.
SELECT
    request_id, created_at, currency, status, stage, due_at, attempt_number, payment_state, provider_id,
    authorized_minor, captured_minor, refunded_minor, releases, attempts, flags
FROM orchestrator.booked
WHERE request_id = ANY ($1::uuid[])
