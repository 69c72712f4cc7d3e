-- drop_market_books: forgets books of which nothing was learned for long.
-- $1 the moment before which, timestamptz.
DELETE FROM aggregator.market_book WHERE changed_at < $1::timestamptz
