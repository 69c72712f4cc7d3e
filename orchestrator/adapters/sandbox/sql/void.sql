-- void: releases an authorization, and keeps the answer.
-- $1 key text   $2 answer text (JSON)   $3 authorization_id text
-- Result: none.
WITH kept AS (
    UPDATE sandbox_provider.idempotency_key SET answer = $2::text::jsonb WHERE key = $1
)
UPDATE sandbox_provider.payment_authorization
SET state = 'voided'
WHERE authorization_id = $3
