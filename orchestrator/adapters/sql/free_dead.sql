-- free_dead: ends the leases of workers whose session is gone: they hold their advisory lock no more. A worker that
-- lives on without its session loses nothing by it but the fence. What several workers in a row have died with is left
-- alone for a while, ever longer: it may be what they died of. What somebody is changing just now is left to the next time.
-- $1 lock class integer   $2 integer: claims in vain after which it is left alone   $3 double precision: seconds, at most
-- Result: request_id of each purchase that was freed.
WITH dead AS (
    SELECT p.request_id
    FROM orchestrator.purchase p
    WHERE p.owner IS NOT NULL AND p.due_at IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.classid = $1::integer::oid AND l.objid = p.owner::oid AND l.granted
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        )
    FOR NO KEY UPDATE OF p SKIP LOCKED
)
UPDATE orchestrator.purchase p
SET
    due_at = now() + CASE WHEN p.claims > $2 THEN least(2.0 ^ (p.claims - $2), $3) ELSE 0 END * interval '1 second',
    owner = NULL
FROM dead d
WHERE p.request_id = d.request_id
RETURNING p.request_id
