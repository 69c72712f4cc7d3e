-- lock_key: lets calls with one idempotency key follow one another, until the end of the transaction.
-- $1 key text
-- Result: none of interest.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0))
