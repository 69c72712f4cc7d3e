-- remove_endpoint: removes an endpoint and gives up what waits for it.
-- $1 endpoint_id uuid   $2 customer_id text   $3 error text
-- Result: one row, or none when this customer has none with this id.
WITH removed AS (
    DELETE FROM orchestrator.webhook_endpoint WHERE endpoint_id = $1 AND customer_id = $2 RETURNING endpoint_id
),
given_up AS (
    UPDATE orchestrator.delivery d SET state = 'failed', next_try_at = NULL, last_error = $3
    FROM removed r
    WHERE d.lane = r.endpoint_id AND d.state = 'waiting'
)
SELECT endpoint_id FROM removed
