-- get_run: a comparison.
-- $1 run_id uuid   $2 lock class integer (of whose turn it is to compare)
-- Result: run_id, mode, since, until, begun_by, outcome, purchases, payments, orders, sellers, gaps, waits (whether
-- another one is under way), attended (whether anybody is comparing just now).
SELECT
    r.run_id, r.mode, r.since, r.until, r.begun_by, r.outcome, r.purchases, r.payments, r.orders, r.sellers, r.gaps,
    EXISTS (
        SELECT FROM orchestrator.reconciliation_run o
        WHERE o.ended_at IS NULL AND o.begun_at IS NOT NULL AND o.run_id <> r.run_id
    ) AS waits,
    EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid = $2::integer::oid AND l.objid = 0 AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS attended
FROM orchestrator.reconciliation_run r
WHERE r.run_id = $1
