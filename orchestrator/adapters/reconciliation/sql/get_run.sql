-- get_run: a comparison.
-- $1 run_id uuid
-- Result: run_id, mode, since, until, begun_by, ended_at, outcome, purchases, payments, orders, sellers, gaps.
SELECT run_id, mode, since, until, begun_by, ended_at, outcome, purchases, payments, orders, sellers, gaps
FROM orchestrator.reconciliation_run
WHERE run_id = $1
