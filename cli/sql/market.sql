-- What is remembered of the market.
-- books: of how many books; answers: of how many pairs of a book and a seller; bytes: what these take by themselves;
-- stored_bytes: with everything that PostgreSQL adds, the index among it.
SELECT
    count(*) AS books,
    coalesce(sum(sellers), 0) AS answers,
    coalesce(sum(length(answers)), 0) AS bytes,
    pg_total_relation_size('aggregator.market_book') AS stored_bytes
FROM aggregator.market_book
