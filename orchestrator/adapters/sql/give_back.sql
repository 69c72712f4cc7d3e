-- give_back: lets others take purchases that a worker stops working on, as if it had not claimed them.
-- $1 request_ids uuid[]   $2 epochs integer[]
-- Result: none.
UPDATE orchestrator.purchase p
SET due_at = now(), owner = NULL, claims = greatest(p.claims - 1, 0),
    claimed_since = CASE WHEN p.claims > 1 THEN p.claimed_since END
FROM unnest($1::uuid[], $2::integer[]) AS mine (request_id, epoch)
WHERE p.request_id = mine.request_id AND p.epoch = mine.epoch AND p.owner IS NOT NULL AND p.due_at IS NOT NULL
