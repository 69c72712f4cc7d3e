-- withdraw_run: takes back a request that nobody has begun.
-- $1 run_id uuid
-- Result: run_id; none when somebody has begun it.
DELETE FROM orchestrator.reconciliation_run WHERE run_id = $1 AND starts = 0
RETURNING run_id
