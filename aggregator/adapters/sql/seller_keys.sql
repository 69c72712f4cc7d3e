-- seller_keys: the numbers of sellers in the history.
-- $1 seller ids, text[].
-- Result: seller_id, seller_no (integer), of those that have one.
SELECT seller_id, seller_no FROM aggregator.seller_key WHERE seller_id = ANY($1::text[])
