-- claim: takes due purchases for a worker: new ones by their turn, those that were claimed before by when they are due.
-- $1 owner integer (the worker)   $2 room integer (most purchases)   $3 lease double precision (seconds)
-- Result: request_id, epoch of each that was taken.
WITH new AS (
    SELECT request_id, turn AS place FROM orchestrator.purchase
    WHERE turn IS NOT NULL AND due_at <= now()
    ORDER BY turn LIMIT $2 FOR UPDATE SKIP LOCKED
),
due AS (
    SELECT request_id, due_at AS place FROM orchestrator.purchase
    WHERE turn IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
),
taken AS (
    SELECT request_id FROM (SELECT request_id, place FROM new UNION ALL SELECT request_id, place FROM due) AS waiting
    ORDER BY place LIMIT $2
)
UPDATE orchestrator.purchase p
SET epoch = p.epoch + 1, claims = p.claims + 1, claimed_since = coalesce(p.claimed_since, now()), owner = $1, turn = NULL,
    due_at = now() + $3 * interval '1 second'
FROM taken t
WHERE p.request_id = t.request_id
RETURNING p.request_id, p.epoch
