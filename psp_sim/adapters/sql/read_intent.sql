-- read_intent: one intent.
-- :intent_id
SELECT intent_id, created, amount, currency, card, metadata, status, charge_id, capture_before, captured, failure_code,
    decline_code, cancellation_reason
FROM intent
WHERE intent_id = :intent_id
