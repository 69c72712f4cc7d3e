-- of_payment: the purchase of a payment, unless an event of it was noted before.
-- $1 provider_id text   $2 event_id text
-- Result: request_id, or none.
SELECT m.request_id
FROM orchestrator.payment m
WHERE m.provider_id = $1 AND NOT EXISTS (
    SELECT FROM orchestrator.observation o
    WHERE o.request_id = m.request_id AND o.kind = 'payment_changed' AND o.body ->> 'detail' = $2
)
