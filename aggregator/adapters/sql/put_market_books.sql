-- put_market_books: remembers books.
-- $1 .. $4 arrays of the same length, one element a book: book_id (text, ascending), changed_at (timestamptz), sellers
--          (integer), answers (bytea).
INSERT INTO aggregator.market_book (book_id, changed_at, sellers, answers)
SELECT given.book_id, given.changed_at, given.sellers, given.answers
FROM unnest($1::text[], $2::timestamptz[], $3::integer[], $4::bytea[]) AS given (book_id, changed_at, sellers, answers)
ORDER BY given.book_id
ON CONFLICT (book_id) DO UPDATE SET
    changed_at = excluded.changed_at,
    sellers = excluded.sellers,
    answers = excluded.answers
