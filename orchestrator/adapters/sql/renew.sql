-- renew: lengthens the leases of purchases that a worker is working on. Rows are locked in the order of their ids, here and
-- in give_back: two of these at once never wait for each other.
-- $1 request_ids uuid[]   $2 epochs integer[]   $3 lease double precision (seconds)
-- Result: request_id, cancel_requested of each that is still the worker's.
WITH mine AS (
    SELECT p.request_id
    FROM orchestrator.purchase p
    JOIN unnest($1::uuid[], $2::integer[]) AS named (request_id, epoch) USING (request_id, epoch)
    WHERE p.owner IS NOT NULL
    ORDER BY p.request_id FOR NO KEY UPDATE OF p
)
UPDATE orchestrator.purchase p
SET due_at = now() + $3 * interval '1 second'
FROM mine m
WHERE p.request_id = m.request_id
RETURNING p.request_id, p.cancel_requested_at IS NOT NULL AS cancel_requested
