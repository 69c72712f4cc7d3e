-- lock_market_books: what is remembered of books, to be changed in this transaction; locked in one order, so that nobody
-- blocks another.
-- $1 book ids, text[].
-- Result: book_id, answers (bytea), of those of which anything is.
SELECT book_id, answers FROM aggregator.market_book WHERE book_id = ANY($1::text[]) ORDER BY book_id FOR UPDATE
