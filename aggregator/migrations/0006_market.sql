-- What is remembered of the market, by which it is chosen whom to ask. All of it can be lost: it is learned again, or
-- worked out from the history of quotes by `bookmesh market rebuild`. Sellers go by their numbers in aggregator.seller_key.

-- What sellers last answered about a book.
CREATE TABLE aggregator.market_book (
    book_id    text        PRIMARY KEY,
    changed_at timestamptz NOT NULL,
    -- of how many sellers
    sellers    integer     NOT NULL,
    -- packed: aggregator/adapters/packed_market.py
    answers    bytea       NOT NULL
);

-- What a process has learned of sellers, all books together ('sellers', 'general') or in one category ('category ...').
CREATE TABLE aggregator.market_learned (
    -- BOOKMESH_PROCESS_INDEX
    process    integer     NOT NULL,
    name       text        NOT NULL,
    changed_at timestamptz NOT NULL,
    -- packed, likewise
    columns    bytea       NOT NULL,
    PRIMARY KEY (process, name)
);
