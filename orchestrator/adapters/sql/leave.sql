-- leave: lets others take a purchase after a while. Whoever leaves it lives: it has not ended its worker.
-- $1 request_id uuid   $2 epoch integer   $3 delay double precision (seconds)
-- Result: none.
UPDATE orchestrator.purchase
SET due_at = now() + $3 * interval '1 second', owner = NULL, claimed_since = NULL
WHERE request_id = $1 AND epoch = $2
