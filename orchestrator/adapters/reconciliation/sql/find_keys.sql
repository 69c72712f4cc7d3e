-- find_keys: which purchases have tries under some keys.
-- $1 text[]: the keys
-- Result: key, request_id of those that there are.
SELECT key, request_id FROM orchestrator.attempt WHERE key = ANY ($1::text[])
