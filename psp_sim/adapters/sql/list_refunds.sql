-- list_refunds: the refunds of an intent, newest first.
-- :intent_id
SELECT refund_id, intent_id, created, amount, status, metadata
FROM refund
WHERE intent_id = :intent_id
ORDER BY seq DESC
