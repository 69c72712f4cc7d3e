-- lock_endpoints: one at a time adds to the endpoints of a customer, until the transaction ends.
-- $1 customer_id text
-- Result: nothing.
SELECT pg_advisory_xact_lock(1852797033, hashtext($1))
