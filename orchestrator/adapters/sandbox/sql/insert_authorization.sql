-- insert_authorization: reserves an amount.
-- $1 authorization_id text   $2 token_kind text   $3 currency text   $4 authorized_minor bigint   $5 reference text
-- Result: none.
INSERT INTO sandbox_provider.payment_authorization
    (authorization_id, token_kind, currency, authorized_minor, state, reference)
VALUES ($1, $2, $3, $4, 'authorized', $5)
