-- market_books: what is remembered of books.
-- $1 book ids, text[].
-- Result: book_id, answers (bytea), of those of which anything is.
SELECT book_id, answers FROM aggregator.market_book WHERE book_id = ANY($1::text[])
