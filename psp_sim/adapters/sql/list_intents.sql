-- list_intents: intents made from :since to :until (Unix seconds, both included), newest first, those older than the one
-- named :after, where that is not null.
-- :since :until :after :limit
SELECT intent_id, created, amount, currency, card, metadata, status, charge_id, capture_before, captured, failure_code,
    decline_code, cancellation_reason
FROM intent
WHERE created BETWEEN :since AND :until
    AND (:after IS NULL OR seq < (SELECT seq FROM intent WHERE intent_id = :after))
ORDER BY seq DESC
LIMIT :limit
