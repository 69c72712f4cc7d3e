-- seller_key_ids: all sellers that have a number.
-- Result: seller_no (integer), seller_id (text).
SELECT seller_no, seller_id FROM aggregator.seller_key
