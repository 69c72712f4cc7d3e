CREATE TABLE IF NOT EXISTS intent (
    seq                 INTEGER PRIMARY KEY AUTOINCREMENT,
    intent_id           TEXT    NOT NULL UNIQUE,
    created             INTEGER NOT NULL,
    amount              INTEGER NOT NULL,
    currency            TEXT    NOT NULL,
    card                TEXT    NOT NULL,
    metadata            TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    charge_id           TEXT,
    capture_before      INTEGER,
    captured            INTEGER NOT NULL,
    failure_code        TEXT,
    decline_code        TEXT,
    cancellation_reason TEXT
);
CREATE INDEX IF NOT EXISTS intent_created ON intent (created);

CREATE TABLE IF NOT EXISTS refund (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    refund_id TEXT    NOT NULL UNIQUE,
    intent_id TEXT    NOT NULL REFERENCES intent (intent_id),
    created   INTEGER NOT NULL,
    amount    INTEGER NOT NULL,
    status    TEXT    NOT NULL,
    metadata  TEXT    NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_intent ON refund (intent_id);

CREATE TABLE IF NOT EXISTS idempotency_key (
    key         TEXT    PRIMARY KEY,
    fingerprint TEXT    NOT NULL,
    status      INTEGER NOT NULL,
    body        TEXT    NOT NULL,
    created     INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS event (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id  TEXT    NOT NULL UNIQUE,
    body      TEXT    NOT NULL,
    delivered INTEGER NOT NULL
);

-- How far the simulator's clock was set forward, in seconds.
CREATE TABLE IF NOT EXISTS clock (
    ahead_s INTEGER NOT NULL
);
