-- keep_email: drops the address that is not confirmed yet.
-- $1 customer_id text
-- Result: nothing.
UPDATE orchestrator.email_code SET open = false WHERE customer_id = $1 AND open
