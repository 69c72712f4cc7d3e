-- The history of quotes: one row a collection, what the sellers answered packed into its columns; the view
-- aggregator.quote_history shows it as one row a quote. docs/history.md explains it.

-- Numbers for sellers, a quarter of the size of their ids. A number is never given to another seller.
CREATE TABLE aggregator.seller_key (
    seller_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seller_id text NOT NULL UNIQUE
);

-- Columns by alignment, so that no byte is padding. Arrays and the strings of outcomes and quote_names have an element
-- for each answer that was new in this collection, in the same order; those that were known already are in the
-- collection that got them.
CREATE TABLE aggregator.collection (
    collection_id     uuid        NOT NULL,
    started_at        timestamptz NOT NULL,
    elapsed_ms        integer     NOT NULL,
    -- how many sellers have an answer in this collection, and of how many it was known already
    sellers           integer     NOT NULL,
    cached            integer     NOT NULL,
    -- how many decimals the currency's minor unit has
    decimals          smallint    NOT NULL,
    book_id           text        NOT NULL,
    currency          text        NOT NULL,
    -- those that would do, words with commas between them
    conditions        text        NOT NULL,
    seller_nos        integer[]   NOT NULL,
    -- a letter for each answer: see aggregator.quote_outcome
    outcomes          text        NOT NULL,
    -- from asking to the answer; null where the seller was not asked; 32767 is that or longer
    response_times_ms smallint[]  NOT NULL,
    -- minor units, null without a quote; the price also where it is the total less shipping
    totals            integer[]   NOT NULL,
    shippings         integer[]   NOT NULL,
    prices            integer[]   NOT NULL,
    -- the seller's names for its quotes: those that are UUIDs, and the others with U+001F between them; null where
    -- there is none of a kind
    quote_uuids       uuid[],
    quote_names       text,
    PRIMARY KEY (collection_id, started_at)
) PARTITION BY RANGE (started_at);

-- For the history of a book.
CREATE INDEX collection_book ON aggregator.collection (book_id, started_at);

-- What the letters of collection.outcomes mean. available: whether the seller has the book, null if it did not say;
-- error: why there is no quote.
CREATE TABLE aggregator.quote_outcome (
    letter    text PRIMARY KEY CHECK (length(letter) = 1),
    condition text,
    available boolean,
    error     text
);

INSERT INTO aggregator.quote_outcome (letter, condition, available, error) VALUES
    ('n', 'new',        true,  null),
    ('l', 'like_new',   true,  null),
    ('v', 'very_good',  true,  null),
    ('g', 'good',       true,  null),
    ('a', 'acceptable', true,  null),
    ('O', null,         false, 'out_of_stock'),
    ('N', null,         false, 'not_carried'),
    ('C', null,         false, 'condition'),
    ('M', null,         false, 'currency'),
    ('T', null,         null,  'timed_out'),
    ('U', null,         null,  'unreachable'),
    ('E', null,         null,  'seller_error'),
    ('L', null,         null,  'rate_limited'),
    ('R', null,         null,  'refused'),
    ('I', null,         null,  'invalid_answer'),
    ('S', null,         null,  'stopped'),
    ('B', null,         null,  'circuit_open'),
    ('P', null,         null,  'no_budget'),
    ('W', null,         null,  'too_slow');

-- One row for each answer of a seller. started_at is when its collection began: a condition on it leaves out the days
-- that do not matter, one on quoted_at does not. Amounts are in units of the currency.
CREATE VIEW aggregator.quote_history AS
SELECT
    coalesce(answer.quote_uuid::text, nullif(answer.quote_name, '')) AS quote_id,
    collection.collection_id,
    seller_key.seller_id,
    collection.book_id,
    coalesce(answer.price, answer.total - answer.shipping) * unit.value AS price,
    answer.shipping * unit.value AS shipping,
    answer.total * unit.value AS total,
    collection.currency,
    quote_outcome.condition,
    quote_outcome.available,
    answer.response_time_ms,
    quote_outcome.error,
    collection.started_at + coalesce(answer.response_time_ms, 0) * interval '1 ms' AS quoted_at,
    collection.started_at
FROM aggregator.collection
CROSS JOIN LATERAL (SELECT round(10::numeric ^ -collection.decimals, collection.decimals) AS value) AS unit
CROSS JOIN LATERAL unnest(
    collection.seller_nos,
    string_to_array(collection.outcomes, null),
    collection.response_times_ms,
    collection.totals,
    collection.shippings,
    collection.prices,
    collection.quote_uuids,
    string_to_array(collection.quote_names, U&'\001F')
) AS answer (seller_no, outcome, response_time_ms, total, shipping, price, quote_uuid, quote_name)
JOIN aggregator.seller_key ON seller_key.seller_no = answer.seller_no
JOIN aggregator.quote_outcome ON quote_outcome.letter = answer.outcome;

-- Makes the partitions for a number of days (UTC), those that are not there. Takes no lock that readers or writers wait
-- for. One caller at a time; gives up after a second's wait.
CREATE FUNCTION aggregator.make_collection_partitions(first_day date, days integer) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
SET lock_timeout = '1s'
AS $$
DECLARE
    a_day date;
    name  text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('aggregator.collection', 0));
    FOR a_day IN SELECT first_day + number FROM generate_series(0, days - 1) AS number LOOP
        name := 'collection_' || to_char(a_day, 'YYYYMMDD');
        IF to_regclass('aggregator.' || name) IS NULL THEN
            -- The target: what is stored out of line fills its pages better than rows of up to 2 kB do.
            EXECUTE format(
                'CREATE TABLE aggregator.%I (LIKE aggregator.collection INCLUDING ALL) WITH (toast_tuple_target = 512)',
                name
            );
            EXECUTE format(
                'ALTER TABLE aggregator.collection ATTACH PARTITION aggregator.%I FOR VALUES FROM (%L) TO (%L)',
                name, a_day::timestamptz, (a_day + 1)::timestamptz
            );
        END IF;
    END LOOP;
END
$$;

-- Drops the partitions of the days before one (UTC) and gives how many there were. Waits for those who read, and they for
-- it, up to 0.2 s. One caller at a time.
CREATE FUNCTION aggregator.drop_collection_partitions(before_day date) RETURNS integer
LANGUAGE plpgsql
SET lock_timeout = '200ms'
AS $$
DECLARE
    name    text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('aggregator.collection', 0));
    FOR name IN
        SELECT class.relname
        FROM pg_inherits
        JOIN pg_class AS class ON class.oid = pg_inherits.inhrelid
        WHERE
            pg_inherits.inhparent = 'aggregator.collection'::regclass
            AND class.relname < 'collection_' || to_char(before_day, 'YYYYMMDD')
        ORDER BY class.relname
    LOOP
        EXECUTE format('DROP TABLE aggregator.%I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
