-- free_dead: ends the leases of workers whose session is gone: they hold their advisory lock no more. A worker that
-- lives on without its session loses nothing by it but the fence.
-- $1 lock class integer
-- Result: request_id of each purchase that was freed.
UPDATE orchestrator.purchase p
SET due_at = now(), owner = NULL
WHERE p.owner IS NOT NULL AND p.due_at IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid = $1::integer::oid AND l.objid = p.owner::oid AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
RETURNING p.request_id
