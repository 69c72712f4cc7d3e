-- set_email: sets the address that is told by e-mail.
-- $1 customer_id text   $2 email text
-- Result: nothing.
INSERT INTO orchestrator.notification_email (customer_id, email) VALUES ($1, $2)
ON CONFLICT (customer_id) DO UPDATE SET email = excluded.email, set_at = now()
