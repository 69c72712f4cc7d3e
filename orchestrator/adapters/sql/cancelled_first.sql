-- cancelled_first: why a commit that began an order was refused.
-- $1 request_id uuid   $2 epoch integer
-- Result: one row when the claim holds and the customer's cancel came first, none when the claim does not hold.
SELECT request_id FROM orchestrator.purchase
WHERE request_id = $1 AND epoch = $2 AND cancel_requested_at IS NOT NULL
