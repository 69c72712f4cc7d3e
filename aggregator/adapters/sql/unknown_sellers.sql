-- unknown_sellers: which of these are not registered.
-- $1 seller ids, text[].
-- Result: seller_id, in alphabetical order.
SELECT given.seller_id
FROM unnest($1::text[]) AS given (seller_id)
WHERE NOT EXISTS (SELECT FROM aggregator.seller AS known WHERE known.seller_id = given.seller_id)
ORDER BY given.seller_id
