-- begin_email: keeps a code for an address, instead of the customer's one before, unless there were too many lately.
-- $1 code_id uuid   $2 customer_id text   $3 email text   $4 key_id text   $5 code_sealed bytea
-- $6 most integer: codes for a customer, and to an address, in $7 within double precision (seconds)
-- Result: code_id, or none when there were too many.
WITH allowed AS (
    SELECT
    WHERE (
            SELECT count(*) FROM orchestrator.email_code c
            WHERE c.customer_id = $2 AND c.sent_at > now() - $7 * interval '1 second'
        ) < $6
        AND (
            SELECT count(*) FROM orchestrator.email_code c
            WHERE lower(c.email) = lower($3) AND c.sent_at > now() - $7 * interval '1 second'
        ) < $6
),
closed AS (
    UPDATE orchestrator.email_code c SET open = false
    FROM allowed
    WHERE c.customer_id = $2 AND c.open
)
INSERT INTO orchestrator.email_code (code_id, customer_id, email, key_id, code_sealed)
SELECT $1, $2, $3, $4, $5 FROM allowed
RETURNING code_id
