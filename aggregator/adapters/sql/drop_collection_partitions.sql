-- drop_collection_partitions: drops the partitions of the days before one (UTC).
-- $1 the first that stays, date.
-- Result: how many were dropped, integer.
SELECT aggregator.drop_collection_partitions($1::date) AS dropped
