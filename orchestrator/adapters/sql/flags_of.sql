-- flags_of: all flags of a purchase, the first first.
-- $1 request_id uuid
-- Result: flag_id, request_id, number, invariant, detail, advice, currency, amount_minor, raised_at, resolved_at,
-- resolved_by, resolution.
SELECT
    f.flag_id, f.request_id, f.number, f.invariant, f.detail, f.advice, p.currency, f.amount_minor, f.raised_at,
    f.resolved_at, f.resolved_by, f.resolution
FROM orchestrator.flag f
JOIN orchestrator.purchase p USING (request_id)
WHERE f.request_id = $1
ORDER BY f.number
