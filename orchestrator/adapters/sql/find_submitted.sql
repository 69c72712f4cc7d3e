-- find_submitted: the purchase that has an id or a customer's idempotency key.
-- $1 request_id uuid   $2 customer_id text   $3 idempotency_key text or NULL
-- Result: request_id, content_hmac, key_id; the one with the key first. None when there is none of this customer.
SELECT request_id, content_hmac, key_id
FROM orchestrator.purchase
WHERE customer_id = $2 AND (request_id = $1 OR idempotency_key = $3)
ORDER BY (idempotency_key = $3) DESC NULLS LAST
LIMIT 1
