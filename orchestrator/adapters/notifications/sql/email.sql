-- email: the address that is told by e-mail.
-- $1 customer_id text
-- Result: email, or no row.
SELECT email FROM orchestrator.notification_email WHERE customer_id = $1
