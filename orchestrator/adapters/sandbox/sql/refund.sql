-- refund: gives an amount back, and keeps the answer.
-- $1 key text   $2 answer text (JSON)   $3 authorization_id text   $4 refunded_minor bigint
-- Result: none.
WITH kept AS (
    UPDATE sandbox_provider.idempotency_key SET answer = $2::text::jsonb WHERE key = $1
)
UPDATE sandbox_provider.payment_authorization
SET refunded_minor = refunded_minor + $4
WHERE authorization_id = $3
