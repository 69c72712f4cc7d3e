-- write_refund: keeps a new refund.
-- :refund_id :intent_id :created :amount :status :metadata (JSON)
INSERT INTO refund (refund_id, intent_id, created, amount, status, metadata)
VALUES (:refund_id, :intent_id, :created, :amount, :status, :metadata)
