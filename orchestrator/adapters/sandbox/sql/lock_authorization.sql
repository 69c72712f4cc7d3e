-- lock_authorization: an authorization, kept from others until the end of the transaction.
-- $1 authorization_id text   $2 now timestamptz
-- Result: token_kind, currency, authorized_minor, captured_minor, refunded_minor, state, lapsed boolean; none when there
-- is no such authorization.
SELECT token_kind, currency, authorized_minor, captured_minor, refunded_minor, state,
    state = 'authorized' AND COALESCE(capture_before <= $2, false) AS lapsed
FROM sandbox_provider.payment_authorization
WHERE authorization_id = $1
FOR UPDATE
