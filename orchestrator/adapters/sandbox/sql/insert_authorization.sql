-- insert_authorization: reserves an amount.
-- $1 authorization_id text   $2 token_kind text   $3 currency text   $4 authorized_minor bigint   $5 reference text
-- $6 capture_before timestamptz   $7 created_at timestamptz
-- Result: none.
INSERT INTO sandbox_provider.payment_authorization
    (authorization_id, token_kind, currency, authorized_minor, state, reference, capture_before, created_at)
VALUES ($1, $2, $3, $4, 'authorized', $5, $6, $7)
