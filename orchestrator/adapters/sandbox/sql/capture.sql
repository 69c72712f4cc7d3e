-- capture: charges an amount of an authorization, and keeps the answer.
-- $1 key text   $2 answer text (JSON)   $3 authorization_id text   $4 captured_minor bigint
-- Result: none.
WITH kept AS (
    UPDATE sandbox_provider.idempotency_key SET answer = $2::text::jsonb WHERE key = $1
)
UPDATE sandbox_provider.payment_authorization
SET state = 'captured', captured_minor = $4, captures = captures + 1
WHERE authorization_id = $3
