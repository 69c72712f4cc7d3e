-- keep: keeps the answer under an idempotency key that was taken in this transaction.
-- $1 key text   $2 answer text (JSON)
-- Result: none.
UPDATE sandbox_provider.idempotency_key SET answer = $2::text::jsonb WHERE key = $1
