-- commit: what a worker decided, all of it or, when another worker has claimed the purchase since, nothing.
-- $1 request_id uuid   $2 epoch integer (of the claim)   $3 stage text   $4 tries integer   $5 status text
-- $6 failure_reason text or NULL   $7 offer jsonb or NULL   $8 plan jsonb
-- $9 due_in double precision: seconds until it may be claimed, or NULL when nothing is left to do
-- $10 keep boolean: whether the worker goes on with it (due_in is then its lease)
-- $11 erase_token boolean
-- $12 payment state text   $13 provider_id text or NULL   $14 captured_minor bigint or NULL
-- $15 attempt jsonb or NULL (its columns by name)
-- $16 event kinds text[]   $17 event bodies text[] (JSON)
-- Result: one row (event_seq), or none when the fence held.
WITH fenced AS (
    UPDATE orchestrator.purchase SET
        stage = $3, tries = $4, status = $5, failure_reason = $6, offer = $7, plan = $8,
        due_at = now() + $9 * interval '1 second',
        owner = CASE WHEN $10 THEN owner END,
        token_sealed = CASE WHEN $11 THEN NULL ELSE token_sealed END,
        attempt_number = coalesce(($15::jsonb ->> 'number')::integer, attempt_number),
        event_seq = event_seq + cardinality($16::text[])
    WHERE request_id = $1 AND epoch = $2
    RETURNING request_id, event_seq
),
payment AS (
    UPDATE orchestrator.payment m SET state = $12, provider_id = $13, captured_minor = $14
    FROM fenced f
    WHERE m.request_id = f.request_id
        AND (m.state, m.provider_id, m.captured_minor) IS DISTINCT FROM ($12, $13, $14)
),
attempt AS (
    INSERT INTO orchestrator.attempt (
        request_id, number, seller_id, key, quote_id, quoted_minor, with_hold, not_after, agreed_minor, hold_id,
        order_id, charged_minor, outcome
    )
    SELECT
        f.request_id, a.number, a.seller_id, a.key, a.quote_id, a.quoted_minor, a.with_hold, a.not_after,
        a.agreed_minor, a.hold_id, a.order_id, a.charged_minor, a.outcome
    FROM fenced f, jsonb_to_record($15::jsonb) AS a (
        number integer, seller_id text, key text, quote_id text, quoted_minor bigint, with_hold boolean,
        not_after timestamptz, agreed_minor bigint, hold_id text, order_id text, charged_minor bigint, outcome text
    )
    WHERE $15::jsonb IS NOT NULL
    ON CONFLICT (request_id, number) DO UPDATE SET
        not_after = excluded.not_after, agreed_minor = excluded.agreed_minor, hold_id = excluded.hold_id,
        order_id = excluded.order_id, charged_minor = excluded.charged_minor, outcome = excluded.outcome
),
events AS (
    INSERT INTO orchestrator.purchase_event (request_id, seq, kind, body)
    SELECT f.request_id, f.event_seq - cardinality($16::text[]) + e.ord, e.kind, e.body::jsonb
    FROM fenced f, unnest($16::text[], $17::text[]) WITH ORDINALITY AS e (kind, body, ord)
)
SELECT event_seq FROM fenced
