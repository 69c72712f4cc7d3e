-- write_intent: keeps an intent, new or changed.
-- :intent_id :created :amount :currency :card :metadata (JSON) :status :charge_id :capture_before :captured
-- :failure_code :decline_code :cancellation_reason
INSERT INTO intent (intent_id, created, amount, currency, card, metadata, status, charge_id, capture_before, captured,
    failure_code, decline_code, cancellation_reason)
VALUES (:intent_id, :created, :amount, :currency, :card, :metadata, :status, :charge_id, :capture_before, :captured,
    :failure_code, :decline_code, :cancellation_reason)
ON CONFLICT (intent_id) DO UPDATE SET
    status = excluded.status, charge_id = excluded.charge_id, capture_before = excluded.capture_before,
    captured = excluded.captured, cancellation_reason = excluded.cancellation_reason
