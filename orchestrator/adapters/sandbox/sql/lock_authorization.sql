-- lock_authorization: an authorization, kept from others until the end of the transaction.
-- $1 authorization_id text
-- Result: token_kind, currency, authorized_minor, state; none when there is no such authorization.
SELECT token_kind, currency, authorized_minor, state
FROM sandbox_provider.payment_authorization
WHERE authorization_id = $1
FOR UPDATE
