-- count_collections: how many collections are in the history.
-- Result: collections, bigint.
SELECT count(*) AS collections FROM aggregator.collection
