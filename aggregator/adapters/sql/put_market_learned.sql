-- put_market_learned: remembers what a process has learned.
-- $1 process, integer.
-- $2, $3 arrays of the same length: name (text), columns (bytea).
-- $4 changed_at, timestamptz.
INSERT INTO aggregator.market_learned (process, name, changed_at, columns)
SELECT $1::integer, given.name, $4::timestamptz, given.columns
FROM unnest($2::text[], $3::bytea[]) AS given (name, columns)
ON CONFLICT (process, name) DO UPDATE SET changed_at = excluded.changed_at, columns = excluded.columns
