-- observations_of: what others have told of a purchase, the first first.
-- $1 request_id uuid
-- Result: number, kind, body, observed_at, observed_by, consumed (whether a worker has acted on it).
SELECT o.number, o.kind, o.body, o.observed_at, o.observed_by, o.number <= p.observed_seq AS consumed
FROM orchestrator.observation o
JOIN orchestrator.purchase p USING (request_id)
WHERE o.request_id = $1
ORDER BY o.number
