-- renew: lengthens the leases of purchases that a worker is working on.
-- $1 request_ids uuid[]   $2 epochs integer[]   $3 lease double precision (seconds)
-- Result: request_id, cancel_requested of each that is still the worker's.
UPDATE orchestrator.purchase p
SET due_at = now() + $3 * interval '1 second'
FROM unnest($1::uuid[], $2::integer[]) AS mine (request_id, epoch)
WHERE p.request_id = mine.request_id AND p.epoch = mine.epoch AND p.owner IS NOT NULL
RETURNING p.request_id, p.cancel_requested_at IS NOT NULL AS cancel_requested
