-- Whom to tell of purchases, and what was sent to them.

-- A message that could not be turned into deliveries steps back, so that it does not hold up the others.
ALTER TABLE orchestrator.outbox ADD COLUMN spread_after timestamptz NOT NULL DEFAULT now();
DROP INDEX orchestrator.outbox_to_spread;
CREATE INDEX outbox_to_spread ON orchestrator.outbox (spread_after) WHERE spread_at IS NULL;

CREATE TABLE orchestrator.webhook_endpoint (
    endpoint_id      uuid        PRIMARY KEY,
    customer_id      text        NOT NULL,
    url              text        NOT NULL,
    key_id           text        NOT NULL,      -- the key of the keyring that secret_sealed is under
    secret_sealed    bytea       NOT NULL,      -- what messages are signed with, encrypted
    previous_key_id  text,                      -- likewise, of the secret before it
    previous_sealed  bytea,
    previous_until   timestamptz,               -- until when messages are signed with that one besides
    disabled_reason  text,                      -- why nothing is sent to it, in a sentence; NULL while it is enabled
    failures         integer     NOT NULL DEFAULT 0,    -- tries that failed since the last that did not
    last_success_at  timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CHECK ((previous_sealed IS NULL) = (previous_key_id IS NULL) AND (previous_sealed IS NULL) = (previous_until IS NULL))
);

CREATE INDEX webhook_endpoint_of_customer ON orchestrator.webhook_endpoint (customer_id, endpoint_id);

CREATE TABLE orchestrator.notification_email (
    customer_id      text        PRIMARY KEY,
    email            text        NOT NULL,
    set_at           timestamptz NOT NULL DEFAULT now()
);

-- One message to one receiver: the queue and the log in one.
CREATE TABLE orchestrator.delivery (
    delivery_id      uuid        PRIMARY KEY,   -- version 7: sorts by age
    message_id       uuid        NOT NULL REFERENCES orchestrator.outbox,
    request_id       uuid        NOT NULL,
    customer_id      text        NOT NULL,
    type             text        NOT NULL,      -- "purchase_request.final", "purchase_request.refunded"
    lane             uuid        NOT NULL,      -- the webhook endpoint, which may be gone since; all zeros for e-mail
    receiver         text        NOT NULL,      -- the address: a URL or an e-mail address
    content          text        NOT NULL,      -- what is sent, the same in every try
    state            text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'failed')),
    tries            integer     NOT NULL DEFAULT 0,    -- begun; the fence: whoever began the last one says how it ended
    last_status      integer,                   -- the HTTP status of the last try, where there was one
    last_error       text        NOT NULL DEFAULT '',
    created_at       timestamptz NOT NULL DEFAULT now(),
    last_try_at      timestamptz,
    next_try_at      timestamptz,               -- while a try is under way: when others take it for lost
    UNIQUE (message_id, lane),
    CHECK ((next_try_at IS NOT NULL) = (state = 'waiting'))
);

-- The queue, lane by lane, so that one receiver with a backlog does not hide the others.
CREATE INDEX delivery_due ON orchestrator.delivery (lane, next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX delivery_of_customer ON orchestrator.delivery (customer_id, delivery_id DESC);
CREATE INDEX delivery_of_request ON orchestrator.delivery (request_id);
CREATE INDEX delivery_over ON orchestrator.delivery (created_at) WHERE next_try_at IS NULL;
