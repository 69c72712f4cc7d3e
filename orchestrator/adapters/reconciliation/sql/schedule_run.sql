-- schedule_run: asks for a scheduled comparison when it is time: once a day of a long time back, else from where the
-- last that compared everything ended, a while before, but at most a day back.
-- $1 every double precision: seconds between scheduled ones; 0 for none   $2 settle double precision: how many seconds
-- the youngest that are compared must be old   $3 long double precision, $4 overlap double precision: seconds
-- Result: run_id, or none when it is not time.
WITH recent AS (
    SELECT
        max(requested_at) AS requested_at,
        max(until) FILTER (WHERE outcome IN ('clean', 'findings')) AS compared_until,
        max(requested_at) FILTER (WHERE until - since >= $3 * interval '1 second' AND outcome <> 'failed') AS long_at
    FROM orchestrator.reconciliation_run
    WHERE requested_by = 'schedule' AND requested_at > now() - interval '2 days'
)
INSERT INTO orchestrator.reconciliation_run (requested_by, mode, since, until)
SELECT
    'schedule', 'tell',
    now() - $2 * interval '1 second' - CASE
        WHEN r.long_at > now() - interval '1 day' THEN
            least(
                now() - $2 * interval '1 second' - coalesce(r.compared_until, '-infinity') + $4 * interval '1 second',
                interval '1 day'
            )
        ELSE $3 * interval '1 second'
    END,
    now() - $2 * interval '1 second'
FROM recent r
WHERE $1 > 0 AND coalesce(r.requested_at <= now() - $1 * interval '1 second', true)
    AND EXISTS (SELECT FROM orchestrator.purchase WHERE created_at < now() - $2 * interval '1 second')
RETURNING run_id
