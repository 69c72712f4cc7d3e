-- request_run: asks for a comparison.
-- $1 requested_by text   $2 mode text   $3 since timestamptz   $4 settle double precision: how many seconds the
-- youngest that are compared must be old
-- $5 run_id uuid
-- Result: none.
INSERT INTO orchestrator.reconciliation_run (requested_by, mode, since, until, run_id)
VALUES ($1, $2, $3, now() - $4 * interval '1 second', $5)
