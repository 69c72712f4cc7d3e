-- put_collection: stores a collection; one that is there already stays as it is.
-- $1 .. $17 the columns of aggregator.collection, in their order.
INSERT INTO aggregator.collection (
    collection_id, started_at, elapsed_ms, sellers, cached, decimals, book_id, currency, conditions, seller_nos, outcomes,
    response_times_ms, totals, shippings, prices, quote_uuids, quote_names
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (collection_id, started_at) DO NOTHING
