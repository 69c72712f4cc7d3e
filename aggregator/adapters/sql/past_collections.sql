-- past_collections: the collections after one, the oldest first.
-- $1, $2 started_at (timestamptz) and collection_id (uuid) of the last one that is known.
-- $3 how many, integer.
-- Result: collection_id, started_at, book_id, currency, seller_nos, outcomes, response_times_ms, totals.
SELECT collection_id, started_at, book_id, currency, seller_nos, outcomes, response_times_ms, totals
FROM aggregator.collection
WHERE (started_at, collection_id) > ($1::timestamptz, $2::uuid)
ORDER BY started_at, collection_id
LIMIT $3::integer
