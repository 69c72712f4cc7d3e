-- open_flags: flags that wait for a decision, the oldest first.
-- $1 after bigint: flag_id (0 for all)   $2 limit integer
-- Result: as flags_of.
SELECT
    f.flag_id, f.request_id, f.number, f.invariant, f.detail, f.advice, p.currency, f.amount_minor, f.raised_at,
    f.resolved_at, f.resolved_by, f.resolution
FROM orchestrator.flag f
JOIN orchestrator.purchase p USING (request_id)
WHERE f.resolved_at IS NULL AND f.flag_id > $1
ORDER BY f.flag_id
LIMIT $2
