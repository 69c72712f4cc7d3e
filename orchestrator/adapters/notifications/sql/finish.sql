-- finish: says how a try ended, unless another one has begun since.
-- $1 delivery_id uuid   $2 tries integer (which try)   $3 state text   $4 status integer or NULL   $5 error text
-- $6 next_in double precision or NULL (seconds; with state waiting alone)
-- $7 gone text or NULL (why its endpoint is disabled now)
-- $8 dead text or NULL (why its endpoint is disabled now, if nothing got there since this delivery was made)
-- Result: nothing. What waits for an endpoint that is disabled by this is given up.
WITH finished AS (
    UPDATE orchestrator.delivery
    SET state = $3, last_status = $4, last_error = $5, next_try_at = now() + $6 * interval '1 second'
    WHERE delivery_id = $1 AND tries = $2 AND state = 'waiting'
    RETURNING delivery_id, lane, created_at
),
endpoint AS (
    UPDATE orchestrator.webhook_endpoint e
    SET failures = CASE WHEN $3 = 'delivered' THEN 0 ELSE e.failures + 1 END,
        last_success_at = CASE WHEN $3 = 'delivered' THEN now() ELSE e.last_success_at END,
        disabled_reason = coalesce(
            e.disabled_reason, $7,
            CASE WHEN coalesce(e.last_success_at, '-infinity') < f.created_at THEN $8 END
        )
    FROM finished f
    WHERE e.endpoint_id = f.lane
    RETURNING e.endpoint_id, e.disabled_reason
)
UPDATE orchestrator.delivery d
SET state = 'failed', next_try_at = NULL, last_error = 'the endpoint was disabled: ' || e.disabled_reason
FROM endpoint e
WHERE e.disabled_reason IS NOT NULL AND d.lane = e.endpoint_id AND d.state = 'waiting' AND d.delivery_id <> $1
