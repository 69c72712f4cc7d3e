-- offered: what accepting the offer of a customer's purchase needs.
-- $1 request_id uuid   $2 customer_id text
-- Result: one row, or none when this customer has none with this id.
SELECT book_id, currency, conditions, offer, key_id, token_sealed
FROM orchestrator.purchase
WHERE request_id = $1 AND customer_id = $2
