-- keep_answer: keeps the first answer under an idempotency key, in the place of one that is forgotten.
-- :key :fingerprint :status :body (JSON) :created
INSERT OR REPLACE INTO idempotency_key (key, fingerprint, status, body, created)
VALUES (:key, :fingerprint, :status, :body, :created)
