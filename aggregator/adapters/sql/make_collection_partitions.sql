-- make_collection_partitions: sees to it that there are partitions for some days (UTC).
-- $1 the first, date.
-- $2 how many, integer.
SELECT aggregator.make_collection_partitions($1::date, $2::integer)
