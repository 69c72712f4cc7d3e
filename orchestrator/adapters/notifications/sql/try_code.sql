-- try_code: gives the code that a customer's address waits for, and counts that it is compared with another.
-- $1 customer_id text   $2 most_tries integer   $3 life double precision (seconds)
-- Result: code_id, key_id, code_sealed, or none.
UPDATE orchestrator.email_code
SET tries = tries + 1
WHERE customer_id = $1 AND open AND tries < $2 AND sent_at > now() - $3 * interval '1 second'
RETURNING code_id, key_id, code_sealed
