-- commit: what a worker decided, all of it or, when another worker has claimed the purchase since, nothing.
-- $1 request_id uuid   $2 epoch integer (of the claim)   $3 stage text   $4 resume_stage text or NULL   $5 tries integer
-- $6 status text   $7 failure_reason text or NULL   $8 offer jsonb or NULL
-- $9 plan jsonb, or NULL when it stays
-- $10 due_in double precision: seconds until it may be claimed, or NULL when nothing is left to do
-- $11 keep boolean: whether the worker goes on with it (due_in is then its lease)
-- $12 erase_token boolean   $13 begins_order boolean: not after a cancel was requested
-- $14 observed integer: the last observation that was acted on
-- $15 payment state text   $16 provider_id text or NULL   $17 capture_before timestamptz or NULL
-- $18 captured_minor bigint or NULL   $19 refunded_minor bigint or NULL
-- $20 attempts jsonb: a list of attempts, each with its columns by name; the last is the present one
-- $21 event kinds text[]   $22 event bodies text[] (JSON)
-- $23 flags jsonb: a list of flags, each with its columns by name
-- $24 resolved_by text, $25 resolution text: of all open flags, or NULL   $26 news text[]: kinds for the outbox
-- Result: one row (event_seq, cancel_requested, observations_wait), or none when the fence held or the cancel came first.
WITH fenced AS (
    UPDATE orchestrator.purchase SET
        stage = $3, resume_stage = $4, tries = $5, status = $6, failure_reason = $7, offer = $8, plan = coalesce($9, plan),
        due_at = CASE WHEN NOT $11 AND observation_seq > $14 THEN now() ELSE now() + $10 * interval '1 second' END,
        owner = CASE WHEN $11 THEN owner END,
        token_sealed = CASE WHEN $12 THEN NULL ELSE token_sealed END,
        attempt_number = coalesce(($20::jsonb -> -1 ->> 'number')::integer, attempt_number),
        event_seq = event_seq + cardinality($21::text[]),
        observed_seq = $14,
        claims = 0,
        claimed_since = NULL
    WHERE request_id = $1 AND epoch = $2 AND NOT ($13 AND cancel_requested_at IS NOT NULL)
    RETURNING
        request_id, customer_id, event_seq, cancel_requested_at IS NOT NULL AS cancel_requested,
        observation_seq > $14 AS observations_wait
),
payment AS (
    UPDATE orchestrator.payment m
    SET state = $15, provider_id = $16, capture_before = $17, captured_minor = $18, refunded_minor = $19
    FROM fenced f
    WHERE m.request_id = f.request_id
        AND (m.state, m.provider_id, m.capture_before, m.captured_minor, m.refunded_minor)
            IS DISTINCT FROM ($15, $16, $17, $18, $19)
),
attempt AS (
    INSERT INTO orchestrator.attempt (
        request_id, number, seller_id, key, quote_id, quoted_minor, with_hold, not_after, agreed_minor, hold_id,
        order_id, charged_minor, outcome
    )
    SELECT
        f.request_id, a.number, a.seller_id, a.key, a.quote_id, a.quoted_minor, a.with_hold, a.not_after,
        a.agreed_minor, a.hold_id, a.order_id, a.charged_minor, a.outcome
    FROM fenced f, jsonb_to_recordset($20::jsonb) AS a (
        number integer, seller_id text, key text, quote_id text, quoted_minor bigint, with_hold boolean,
        not_after timestamptz, agreed_minor bigint, hold_id text, order_id text, charged_minor bigint, outcome text
    )
    ON CONFLICT (request_id, number) DO UPDATE SET
        not_after = excluded.not_after, agreed_minor = excluded.agreed_minor, hold_id = excluded.hold_id,
        order_id = excluded.order_id, charged_minor = excluded.charged_minor, outcome = excluded.outcome
),
events AS (
    INSERT INTO orchestrator.purchase_event (request_id, seq, kind, body)
    SELECT f.request_id, f.event_seq - cardinality($21::text[]) + e.ord, e.kind, e.body::jsonb
    FROM fenced f, unnest($21::text[], $22::text[]) WITH ORDINALITY AS e (kind, body, ord)
),
resolved AS (
    UPDATE orchestrator.flag g SET resolved_at = now(), resolved_by = $24::text, resolution = $25::text
    FROM fenced f
    WHERE $24::text IS NOT NULL AND g.request_id = f.request_id AND g.resolved_at IS NULL
),
raised AS (
    INSERT INTO orchestrator.flag (request_id, number, invariant, detail, advice, amount_minor)
    SELECT
        f.request_id, (SELECT count(*) FROM orchestrator.flag o WHERE o.request_id = f.request_id) + n.ord, n.invariant,
        n.detail, n.advice, n.amount_minor
    FROM fenced f, ROWS FROM (
        jsonb_to_recordset($23::jsonb) AS (invariant text, detail text, advice text, amount_minor bigint)
    ) WITH ORDINALITY AS n (invariant, detail, advice, amount_minor, ord)
),
news AS (
    INSERT INTO orchestrator.outbox (request_id, customer_id, kind)
    SELECT f.request_id, f.customer_id, k.kind FROM fenced f, unnest($26::text[]) AS k (kind)
    ON CONFLICT (request_id, kind) DO NOTHING
)
SELECT event_seq, cancel_requested, observations_wait FROM fenced
