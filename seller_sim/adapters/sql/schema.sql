-- schema: the ledger of all sellers. Run at every start.
--
-- Times are microseconds since 1970, UTC. answer and state are JSON, as adapters/sqlite.py writes them.
CREATE TABLE IF NOT EXISTS hold (
    seller_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    content BLOB NOT NULL,   -- fingerprint of the request; empty for a key that was closed beforehand
    book_id TEXT NOT NULL,
    condition INTEGER,       -- number of seller.v1.Condition; NULL where there was no copy
    answer TEXT,             -- the first answer; NULL for a closed key
    state TEXT NOT NULL,
    PRIMARY KEY (seller_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS book_order (
    seller_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    content BLOB NOT NULL,
    buyer_reference TEXT NOT NULL,
    book_id TEXT NOT NULL,
    condition INTEGER,
    answer TEXT,
    state TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    too_late INTEGER NOT NULL,  -- 1 when a cancel was answered with "too late"
    PRIMARY KEY (seller_id, idempotency_key)
) STRICT, WITHOUT ROWID;
