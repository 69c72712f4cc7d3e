-- What others tell of a purchase (its customer's cancel, operators, the reconciler, the payment provider), what no rule
-- can decide, and a queue that a customer with a backlog does not hold up.

ALTER TABLE orchestrator.purchase
    ADD COLUMN cancel_requested_at timestamptz,             -- when its customer asked for it to be cancelled
    ADD COLUMN accepted_offer_of   uuid UNIQUE REFERENCES orchestrator.purchase,   -- whose offer it was made of
    ADD COLUMN resume_stage        text,                    -- with stage flagged: where an operator's retry goes on
    ADD COLUMN claims              integer NOT NULL DEFAULT 0,      -- claims since the last commit
    ADD COLUMN observation_seq     integer NOT NULL DEFAULT 0,      -- the number of its last observation
    ADD COLUMN observed_seq        integer NOT NULL DEFAULT 0,      -- the last that a worker has acted on
    ADD COLUMN turn                timestamptz;             -- its place in the queue until it is claimed first

-- A customer's purchases stand in the queue some seconds apart, however many there are: the other customers' are between
-- them. What was claimed once has no turn any more, but comes when it is due.
DROP INDEX orchestrator.purchase_due;
CREATE INDEX purchase_turn ON orchestrator.purchase (turn) WHERE turn IS NOT NULL AND due_at IS NOT NULL;
CREATE INDEX purchase_turn_of_customer ON orchestrator.purchase (customer_id, turn)
    WHERE turn IS NOT NULL AND due_at IS NOT NULL;
CREATE INDEX purchase_due ON orchestrator.purchase (due_at) WHERE turn IS NULL AND due_at IS NOT NULL;

ALTER TABLE orchestrator.payment
    ADD COLUMN capture_before timestamptz,                  -- when the provider lets the authorization lapse
    ADD COLUMN refunded_minor bigint CHECK (refunded_minor <= captured_minor),
    DROP CONSTRAINT payment_state_check,
    DROP CONSTRAINT payment_check,
    DROP CONSTRAINT payment_check1,
    ADD CONSTRAINT payment_state_check CHECK
        (state IN ('intended', 'authorized', 'declined', 'captured', 'voided', 'refunded')),
    ADD CONSTRAINT payment_captured_within_authorized CHECK (captured_minor <= authorized_minor),
    ADD CONSTRAINT payment_captured_known CHECK ((captured_minor IS NOT NULL) = (state IN ('captured', 'refunded'))),
    ADD CONSTRAINT payment_refunded_known CHECK ((refunded_minor IS NOT NULL) = (state = 'refunded'));

CREATE INDEX payment_of_provider ON orchestrator.payment (provider_id) WHERE provider_id IS NOT NULL;

-- What others have told of a purchase. They only write it down; the worker that claims the purchase acts on it.
CREATE TABLE orchestrator.observation (
    request_id       uuid        NOT NULL REFERENCES orchestrator.purchase,
    number           integer     NOT NULL,      -- 1, 2, 3, ... without gaps
    kind             text        NOT NULL CHECK (kind IN ('payment_changed', 'order_changed', 'resolve')),
    body             jsonb       NOT NULL,
    observed_at      timestamptz NOT NULL DEFAULT now(),
    observed_by      text        NOT NULL,      -- an operator, "reconciler", or "provider"
    PRIMARY KEY (request_id, number)
);

-- What waits, or waited, for an operator.
CREATE TABLE orchestrator.flag (
    flag_id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id       uuid        NOT NULL REFERENCES orchestrator.purchase,
    number           integer     NOT NULL,      -- 1, 2, 3, ... of the purchase
    invariant        text        NOT NULL CHECK (invariant ~ '^I([1-9]|1[0-2])$'),     -- in doubt
    detail           text        NOT NULL,      -- what was seen
    advice           text        NOT NULL,      -- what to do about it
    amount_minor     bigint,                    -- at stake, in the purchase's currency
    raised_at        timestamptz NOT NULL DEFAULT now(),
    resolved_at      timestamptz,
    resolved_by      text,
    resolution       text,
    UNIQUE (request_id, number),
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL) AND (resolved_at IS NULL) = (resolution IS NULL))
);

CREATE INDEX flag_open ON orchestrator.flag (flag_id) WHERE resolved_at IS NULL;
