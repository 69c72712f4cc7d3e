-- capture: charges an amount of an authorization.
-- $1 authorization_id text   $2 captured_minor bigint
-- Result: none.
UPDATE sandbox_provider.payment_authorization
SET state = 'captured', captured_minor = $2, captures = captures + 1
WHERE authorization_id = $1
