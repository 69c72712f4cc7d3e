-- list_payments: authorizations that follow one in the order of their making.
-- $1 now timestamptz   $2 created_at timestamptz of the one before   $3 authorization_id text of the one before
-- $4 limit integer
-- Result: as of get_payment, oldest first.
SELECT authorization_id, currency, authorized_minor, captured_minor, refunded_minor, reference, capture_before,
    created_at,
    CASE WHEN state = 'authorized' AND capture_before <= $1 THEN 'voided' ELSE state END AS state
FROM sandbox_provider.payment_authorization
WHERE (created_at, authorization_id) > ($2, $3)
ORDER BY created_at, authorization_id
LIMIT $4
