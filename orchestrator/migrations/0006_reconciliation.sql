-- What comparing our books with the payment provider's and the sellers' needs and finds, and what we owe sellers.

-- A purchase with all that is compared.
CREATE VIEW orchestrator.booked AS
SELECT
    p.request_id, p.created_at, p.currency, p.status, p.stage, p.due_at, p.attempt_number, p.observation_seq,
    p.observed_seq, m.state AS payment_state, m.provider_id, m.authorized_minor, m.captured_minor, m.refunded_minor,
    coalesce(p.plan -> 'releases', '[]') AS releases,       -- [{seller_id, key}]: holds whose release was not answered
    (
        SELECT coalesce(jsonb_agg(to_jsonb(a) ORDER BY a.number), '[]')
        FROM (
            SELECT number, seller_id, key, begun_at, charged_minor, outcome
            FROM orchestrator.attempt WHERE request_id = p.request_id
        ) a
    ) AS attempts,
    (
        SELECT coalesce(jsonb_agg(to_jsonb(f) ORDER BY f.number), '[]')
        FROM (
            SELECT number, invariant, detail, amount_minor, raised_at
            FROM orchestrator.flag WHERE request_id = p.request_id AND resolved_at IS NULL
        ) f
    ) AS flags
FROM orchestrator.purchase p
JOIN orchestrator.payment m USING (request_id);

CREATE INDEX purchase_committed ON orchestrator.purchase (created_at, request_id);

-- A comparison that was asked for, and how it went: the record of who did what.
CREATE TABLE orchestrator.reconciliation_run (
    run_id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    requested_by     text        NOT NULL,      -- "schedule", or who gave the command
    requested_at     timestamptz NOT NULL DEFAULT now(),
    mode             text        NOT NULL CHECK (mode IN ('report', 'tell', 'apply')),
    since            timestamptz NOT NULL,      -- what was committed, paid or ordered from here
    until            timestamptz NOT NULL,      -- and before here
    starts           integer     NOT NULL DEFAULT 0,    -- how often it was begun
    begun_at         timestamptz,
    begun_by         text,                      -- the process
    ended_at         timestamptz,
    outcome          text        CHECK (outcome IN ('clean', 'findings', 'partial', 'failed')),
    purchases        bigint,                    -- how many were compared
    payments         bigint,
    orders           bigint,
    sellers          bigint,                    -- whose lists were read to their end
    gaps             jsonb,                     -- [{who, why}]: what could not be compared
    CHECK (since < until),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

CREATE INDEX reconciliation_run_open ON orchestrator.reconciliation_run (requested_at) WHERE ended_at IS NULL;
CREATE INDEX reconciliation_run_scheduled ON orchestrator.reconciliation_run (requested_at)
    WHERE requested_by = 'schedule';

-- What did not agree. Each run writes down all that it finds, so the latest run has what is so now.
CREATE TABLE orchestrator.reconciliation_finding (
    run_id           uuid        NOT NULL REFERENCES orchestrator.reconciliation_run,
    number           integer     NOT NULL,      -- 1, 2, 3, ... of the run
    kind             text        NOT NULL,
    invariant        text        NOT NULL,      -- in doubt, "I1" to "I12"
    request_id       uuid,                      -- not a reference: it may be a purchase that we do not have
    seller_id        text,
    provider_id      text,                      -- the provider's name for the payment
    order_key        text,                      -- our key of the order
    amount_minor     bigint,                    -- at stake
    currency         text,
    began_at         timestamptz NOT NULL,      -- since when, as far as anybody says
    detail           text        NOT NULL,      -- what was seen
    advice           text        NOT NULL,      -- what to do about it
    done             text        NOT NULL CHECK (done IN ('left', 'told', 'resolved')),
    note             text        NOT NULL,      -- what stood in the way; empty when nothing did
    PRIMARY KEY (run_id, number),
    CHECK ((amount_minor IS NULL) = (currency IS NULL))
);

CREATE INDEX reconciliation_finding_of_purchase ON orchestrator.reconciliation_finding (request_id)
    WHERE request_id IS NOT NULL;

-- What we owe each seller, by day (UTC) and currency: orders that were confirmed and charged on that day, less those
-- that were given back or cancelled on that day after they had been charged. A day that is over does not change any
-- more; a day on which more was taken back than ordered is negative.
CREATE VIEW orchestrator.payable AS
WITH taken_back AS (
    SELECT DISTINCT ON (e.request_id) e.request_id, (e.happened_at AT TIME ZONE 'UTC')::date AS day
    FROM orchestrator.purchase_event e
    JOIN orchestrator.purchase p USING (request_id)
    JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
    WHERE e.kind = 'step' AND e.body ->> 'name' IN ('refunded', 'order_cancelled') AND p.status = 'purchased'
        AND (e.body ->> 'seller_id' IS NULL OR e.body ->> 'seller_id' = a.seller_id)
        AND EXISTS (
            SELECT FROM orchestrator.purchase_event c
            WHERE c.request_id = e.request_id AND c.seq < e.seq AND c.kind = 'step' AND c.body ->> 'name' = 'captured'
        )
    ORDER BY e.request_id, e.seq
),
entry AS (
    SELECT e.request_id, (e.happened_at AT TIME ZONE 'UTC')::date AS day, false AS back
    FROM orchestrator.purchase_event e
    WHERE e.kind = 'step' AND e.body ->> 'name' = 'captured'
    UNION ALL
    SELECT t.request_id, t.day, true FROM taken_back t
)
SELECT
    e.day, a.seller_id, p.currency,
    count(*) FILTER (WHERE NOT e.back) AS orders,
    coalesce(sum(a.charged_minor) FILTER (WHERE NOT e.back), 0)::bigint AS ordered_minor,
    count(*) FILTER (WHERE e.back) AS taken_back,
    coalesce(sum(a.charged_minor) FILTER (WHERE e.back), 0)::bigint AS taken_back_minor,
    sum(CASE WHEN e.back THEN -a.charged_minor ELSE a.charged_minor END)::bigint AS owed_minor
FROM entry e
JOIN orchestrator.purchase p USING (request_id)
JOIN orchestrator.attempt a ON a.request_id = p.request_id AND a.number = p.attempt_number
WHERE p.status = 'purchased'
GROUP BY e.day, a.seller_id, p.currency;

CREATE INDEX purchase_event_of_money ON orchestrator.purchase_event (((happened_at AT TIME ZONE 'UTC')::date))
    WHERE kind = 'step' AND body ->> 'name' IN ('captured', 'refunded', 'order_cancelled');
