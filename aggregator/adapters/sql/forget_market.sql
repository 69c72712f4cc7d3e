-- forget_market: forgets what was learned, of books and of sellers, before all of it is learned again.
TRUNCATE aggregator.market_book, aggregator.market_learned
