-- market_learned: what a process has learned under a name; that of any other where it has nothing, the newest first.
-- $1 process, integer.
-- $2 name, text.
-- Result: columns (bytea), of one row at the most.
SELECT columns FROM aggregator.market_learned
WHERE name = $2::text
ORDER BY process = $1::integer DESC, changed_at DESC
LIMIT 1
