-- begin_run: begins the comparison that was asked for first, also one whose process ended before it.
-- $1 begun_by text
-- Result: run_id, starts, mode, since, until; none when none is asked for.
UPDATE orchestrator.reconciliation_run SET starts = starts + 1, begun_at = now(), begun_by = $1
WHERE run_id = (
    SELECT run_id FROM orchestrator.reconciliation_run WHERE ended_at IS NULL ORDER BY requested_at LIMIT 1
)
RETURNING run_id, starts, mode, since, until
