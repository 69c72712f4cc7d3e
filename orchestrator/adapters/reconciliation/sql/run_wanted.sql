-- run_wanted: whether a comparison is asked for, or it is time for a scheduled one.
-- $1 every double precision: seconds between scheduled ones; 0 for none   $2 settle double precision: how many seconds
-- the youngest that are compared must be old; where there are none there is nothing to compare
-- Result: wanted boolean.
SELECT
    EXISTS (SELECT FROM orchestrator.reconciliation_run WHERE ended_at IS NULL)
    OR $1 > 0 AND NOT EXISTS (
        SELECT FROM orchestrator.reconciliation_run
        WHERE requested_by = 'schedule' AND requested_at > now() - $1 * interval '1 second'
    ) AND EXISTS (SELECT FROM orchestrator.purchase WHERE created_at < now() - $2 * interval '1 second') AS wanted
