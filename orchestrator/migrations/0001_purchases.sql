-- Purchases, their payments, attempts and events. The purchase row is the queue.

CREATE SCHEMA orchestrator;

-- Names of workers: each holds an advisory lock (class 1651470187, its id) for as long as it lives.
CREATE SEQUENCE orchestrator.worker_id AS integer CYCLE;

CREATE TABLE orchestrator.purchase (
    request_id       uuid        PRIMARY KEY,
    customer_id      text        NOT NULL,
    idempotency_key  text,                      -- the customer's; NULL without one
    content_hmac     bytea       NOT NULL,      -- of what was asked for, under key_id
    key_id           text        NOT NULL,      -- the key of the keyring that content_hmac and token_sealed are under
    token_sealed     bytea,                     -- the payment token, encrypted; NULL once it is not needed any more
    book_id          text        NOT NULL,
    currency         text        NOT NULL,      -- ISO 4217; of all amounts of the purchase
    max_price_minor  bigint      NOT NULL CHECK (max_price_minor > 0),
    conditions       text[]      NOT NULL,
    traceparent      text,
    created_at       timestamptz NOT NULL DEFAULT now(),

    -- what the customer sees
    status           text        NOT NULL DEFAULT 'pending' CHECK (status IN
        ('pending', 'purchased', 'price_not_met', 'not_available', 'failed', 'cancelled')),
    failure_reason   text        CHECK ((failure_reason IS NOT NULL) = (status = 'failed')),
    offer            jsonb       CHECK ((offer IS NOT NULL) = (status = 'price_not_met')),

    -- the queue
    stage            text        NOT NULL,
    tries            integer     NOT NULL DEFAULT 0,
    epoch            integer     NOT NULL DEFAULT 0,
    owner            integer,                   -- the worker that has claimed it; NULL when nobody has
    due_at           timestamptz,               -- when it may be claimed, or until when it is; NULL when nothing is left
    event_seq        integer     NOT NULL DEFAULT 0,
    plan             jsonb       NOT NULL DEFAULT '{}',   -- what is known of the sellers
    attempt_number   integer                    -- the present or last attempt
);

CREATE UNIQUE INDEX purchase_idempotency ON orchestrator.purchase (customer_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX purchase_of_customer ON orchestrator.purchase (customer_id, request_id DESC);
-- The queue, customer by customer, so that one with a backlog does not hide the others.
CREATE INDEX purchase_due ON orchestrator.purchase (customer_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX purchase_owned ON orchestrator.purchase (owner) WHERE owner IS NOT NULL;

CREATE TABLE orchestrator.payment (
    request_id       uuid        PRIMARY KEY REFERENCES orchestrator.purchase,
    authorize_key    text        NOT NULL UNIQUE,
    state            text        NOT NULL CHECK (state IN ('intended', 'authorized', 'declined', 'captured', 'voided')),
    authorized_minor bigint      NOT NULL,
    provider_id      text,
    captured_minor   bigint      CHECK (captured_minor <= authorized_minor),
    CHECK ((captured_minor IS NOT NULL) = (state = 'captured'))
);

CREATE TABLE orchestrator.attempt (
    request_id       uuid        NOT NULL REFERENCES orchestrator.purchase,
    number           integer     NOT NULL,
    seller_id        text        NOT NULL,
    key              text        NOT NULL UNIQUE,
    quote_id         text        NOT NULL,
    quoted_minor     bigint      NOT NULL,
    with_hold        boolean     NOT NULL,
    not_after        timestamptz NOT NULL,
    agreed_minor     bigint      NOT NULL,
    hold_id          text,
    order_id         text,
    charged_minor    bigint,
    outcome          text,
    begun_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, number)
);

CREATE TABLE orchestrator.purchase_event (
    request_id       uuid        NOT NULL REFERENCES orchestrator.purchase,
    seq              integer     NOT NULL,      -- 1, 2, 3, ... without gaps
    happened_at      timestamptz NOT NULL DEFAULT now(),
    kind             text        NOT NULL CHECK (kind IN ('step', 'collected', 'finished')),
    body             jsonb       NOT NULL,
    PRIMARY KEY (request_id, seq)
);

-- The last line of defence: whatever the code does, a final status stays and an epoch only grows.
CREATE FUNCTION orchestrator.guard_purchase() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'pending' AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'purchase %: % is final and cannot become %', OLD.request_id, OLD.status, NEW.status;
    END IF;
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'purchase %: epoch % cannot go back to %', OLD.request_id, OLD.epoch, NEW.epoch;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER guard_purchase BEFORE UPDATE ON orchestrator.purchase
    FOR EACH ROW EXECUTE FUNCTION orchestrator.guard_purchase();
