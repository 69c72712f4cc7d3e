-- events: what happened in a purchase after an event.
-- $1 request_id uuid   $2 after integer (0 for all)
-- Result: seq, happened_at, kind, body, in the order in which they happened.
SELECT seq, happened_at, kind, body
FROM orchestrator.purchase_event
WHERE request_id = $1 AND seq > $2
ORDER BY seq
