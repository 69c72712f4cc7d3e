-- refund: gives an amount back.
-- $1 authorization_id text   $2 refunded_minor bigint
-- Result: none.
UPDATE sandbox_provider.payment_authorization
SET refunded_minor = refunded_minor + $2
WHERE authorization_id = $1
