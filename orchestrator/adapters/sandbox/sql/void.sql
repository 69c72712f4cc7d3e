-- void: releases an authorization.
-- $1 authorization_id text
-- Result: none.
UPDATE sandbox_provider.payment_authorization SET state = 'voided' WHERE authorization_id = $1
