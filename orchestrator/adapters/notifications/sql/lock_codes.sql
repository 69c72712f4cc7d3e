-- lock_codes: lets nobody else keep a code for an address until the transaction ends, so that they are counted right.
-- Result: nothing.
SELECT pg_advisory_xact_lock(hashtextextended('orchestrator.email_code', 0))
