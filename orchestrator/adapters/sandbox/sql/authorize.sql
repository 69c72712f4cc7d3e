-- authorize: keeps the first answer under an idempotency key, and reserves an amount if that is the answer. Who comes with
-- the same key at the same time waits here until the first is done.
-- $1 key text   $2 content text   $3 answer text (JSON)   $4 authorization_id text, or NULL when nothing is reserved
-- $5 token_kind text   $6 currency text   $7 authorized_minor bigint   $8 reference text   $9 capture_before timestamptz
-- $10 created_at timestamptz
-- Result: is_new boolean: whether the key was new; else nothing was done.
WITH kept AS (
    INSERT INTO sandbox_provider.idempotency_key (key, content, answer) VALUES ($1, $2, $3::text::jsonb)
    ON CONFLICT (key) DO NOTHING
    RETURNING key
),
reserved AS (
    INSERT INTO sandbox_provider.payment_authorization
        (authorization_id, token_kind, currency, authorized_minor, state, reference, capture_before, created_at)
    SELECT $4, $5, $6, $7, 'authorized', $8, $9, $10 FROM kept WHERE $4::text IS NOT NULL
)
SELECT count(*) = 1 AS is_new FROM kept
