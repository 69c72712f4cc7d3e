-- email: the address that is told by e-mail, and the one that waits for its code.
-- $1 customer_id text   $2 most_tries integer   $3 life double precision (seconds)
-- Result: one row (email, unconfirmed_email), each NULL without one.
SELECT
    (SELECT m.email FROM orchestrator.notification_email m WHERE m.customer_id = $1) AS email,
    (
        SELECT c.email FROM orchestrator.email_code c
        WHERE c.customer_id = $1 AND c.open AND c.tries < $2 AND c.sent_at > now() - $3 * interval '1 second'
        ORDER BY c.sent_at DESC LIMIT 1
    ) AS unconfirmed_email
