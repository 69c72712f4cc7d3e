-- read_answer: the answer kept under a key since :since (Unix seconds).
-- :key :since
SELECT fingerprint, status, body FROM idempotency_key WHERE key = :key AND created > :since
