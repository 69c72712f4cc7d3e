-- get_key: the first answer under an idempotency key.
-- $1 key text
-- Result: content, answer (JSON); none when the key is new.
SELECT content, answer FROM sandbox_provider.idempotency_key WHERE key = $1
