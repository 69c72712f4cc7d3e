-- set_aside: leaves a purchase that cannot be read as it is, with a flag, until an observation makes it due.
-- $1 request_id uuid   $2 epoch integer   $3 invariant text   $4 detail text   $5 advice text
-- Result: none.
WITH aside AS (
    UPDATE orchestrator.purchase SET due_at = NULL, owner = NULL, claims = 0, claimed_since = NULL
    WHERE request_id = $1 AND epoch = $2
    RETURNING request_id
)
INSERT INTO orchestrator.flag (request_id, number, invariant, detail, advice)
SELECT a.request_id, (SELECT count(*) FROM orchestrator.flag o WHERE o.request_id = $1) + 1, $3, $4, $5
FROM aside a
WHERE NOT EXISTS (
    SELECT FROM orchestrator.flag o WHERE o.request_id = $1 AND o.invariant = $3 AND o.resolved_at IS NULL
)
