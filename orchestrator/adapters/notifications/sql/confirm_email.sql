-- confirm_email: has an address told by e-mail, whose code was sent back.
-- $1 code_id uuid
-- Result: email, or none when the code was used or superseded meanwhile.
WITH used AS (
    UPDATE orchestrator.email_code SET open = false WHERE code_id = $1 AND open RETURNING customer_id, email
)
INSERT INTO orchestrator.notification_email (customer_id, email)
SELECT customer_id, email FROM used
ON CONFLICT (customer_id) DO UPDATE SET email = excluded.email, set_at = now()
RETURNING email
