-- What customers are to be told, written in the same commit as what happened. Telling them is somebody else's work.

CREATE TABLE orchestrator.outbox (
    message_id       uuid        PRIMARY KEY DEFAULT gen_random_uuid(),    -- the same in every try to tell it
    request_id       uuid        NOT NULL REFERENCES orchestrator.purchase,
    customer_id      text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('final', 'refunded')),
    created_at       timestamptz NOT NULL DEFAULT now(),
    spread_at        timestamptz,               -- when a delivery was made for each receiver; NULL until then
    UNIQUE (request_id, kind)
);

CREATE INDEX outbox_to_spread ON orchestrator.outbox (created_at) WHERE spread_at IS NULL;
