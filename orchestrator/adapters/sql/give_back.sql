-- give_back: lets others take purchases that a worker stops working on, as if it had not claimed them.
-- $1 request_ids uuid[]   $2 epochs integer[]
-- Result: none.
WITH mine AS (
    SELECT p.request_id
    FROM orchestrator.purchase p
    JOIN unnest($1::uuid[], $2::integer[]) AS named (request_id, epoch) USING (request_id, epoch)
    WHERE p.owner IS NOT NULL AND p.due_at IS NOT NULL
    ORDER BY p.request_id FOR NO KEY UPDATE OF p
)
UPDATE orchestrator.purchase p
SET due_at = now(), owner = NULL, claims = greatest(p.claims - 1, 0),
    claimed_since = CASE WHEN p.claims > 1 THEN p.claimed_since END
FROM mine m
WHERE p.request_id = m.request_id
