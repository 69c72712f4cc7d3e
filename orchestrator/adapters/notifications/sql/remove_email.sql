-- remove_email: has nothing told by e-mail any more, and gives up what waits for that, a code included.
-- $1 customer_id text   $2 error text
-- Result: nothing.
WITH closed AS (
    UPDATE orchestrator.email_code SET open = false WHERE customer_id = $1 AND open
),
removed AS (
    DELETE FROM orchestrator.notification_email WHERE customer_id = $1 RETURNING customer_id
)
UPDATE orchestrator.delivery d SET state = 'failed', next_try_at = NULL, last_error = $2
FROM removed r
WHERE d.customer_id = r.customer_id AND d.lane = '00000000-0000-0000-0000-000000000000' AND d.state = 'waiting'
