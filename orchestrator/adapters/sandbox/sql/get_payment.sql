-- get_payment: an authorization as it is now.
-- $1 authorization_id text   $2 now timestamptz
-- Result: authorization_id, currency, authorized_minor, captured_minor, refunded_minor, reference, capture_before,
-- created_at, state (voided once it has lapsed); none when there is no such authorization.
SELECT authorization_id, currency, authorized_minor, captured_minor, refunded_minor, reference, capture_before,
    created_at,
    CASE WHEN state = 'authorized' AND capture_before <= $2 THEN 'voided' ELSE state END AS state
FROM sandbox_provider.payment_authorization
WHERE authorization_id = $1
