-- next_worker_id: a name for a worker.
-- Result: worker_id integer.
SELECT nextval('orchestrator.worker_id')::integer AS worker_id
