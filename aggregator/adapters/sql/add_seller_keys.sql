-- add_seller_keys: gives numbers to sellers that have none; in one order for all who do so, so that nobody blocks another.
-- $1 seller ids, text[].
INSERT INTO aggregator.seller_key (seller_id)
SELECT given.seller_id FROM unnest($1::text[]) AS given (seller_id) ORDER BY given.seller_id
ON CONFLICT (seller_id) DO NOTHING
