-- put_key: keeps the first answer under an idempotency key.
-- $1 key text   $2 content text   $3 answer text (JSON)
-- Result: none.
INSERT INTO sandbox_provider.idempotency_key (key, content, answer) VALUES ($1, $2, $3::text::jsonb)
