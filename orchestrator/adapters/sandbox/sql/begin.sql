-- begin: takes an idempotency key, if it is new, and keeps an authorization from others until the end of the transaction.
-- Who comes with the same key at the same time waits here until the first is done.
-- $1 key text   $2 content text   $3 authorization_id text   $4 now timestamptz
-- Result: is_new boolean: whether the key was new; authorization_id, token_kind, currency, authorized_minor,
-- captured_minor, refunded_minor, state, lapsed boolean; NULL when there is no such authorization.
WITH taken AS (
    INSERT INTO sandbox_provider.idempotency_key (key, content, answer) VALUES ($1, $2, '{}')
    ON CONFLICT (key) DO NOTHING
    RETURNING key
),
payment AS (
    SELECT authorization_id, token_kind, currency, authorized_minor, captured_minor, refunded_minor, state,
        state = 'authorized' AND COALESCE(capture_before <= $4, false) AS lapsed
    FROM sandbox_provider.payment_authorization
    WHERE authorization_id = $3
    FOR UPDATE
)
SELECT counted.is_new, payment.authorization_id, payment.token_kind, payment.currency, payment.authorized_minor,
    payment.captured_minor, payment.refunded_minor, payment.state, payment.lapsed
FROM (SELECT count(*) = 1 AS is_new FROM taken) AS counted LEFT JOIN payment ON true
