-- submit: commits a purchase, its intent to authorize and its first events, unless the id, the customer's key or the offer
-- is taken.
-- $1 request_id uuid   $2 customer_id text   $3 idempotency_key text or NULL   $4 content_hmac bytea   $5 key_id text
-- $6 token_sealed bytea   $7 book_id text   $8 currency text   $9 max_price_minor bigint   $10 conditions text[]
-- $11 traceparent text or NULL   $12 stage text   $13 event kinds text[]   $14 event bodies text[] (JSON)
-- $15 accepted_offer_of uuid or NULL   $16 spacing double precision: seconds between the turns of one customer
-- Result: one row (request_id) when it was committed, none when something is taken.
WITH submitted AS (
    INSERT INTO orchestrator.purchase (
        request_id, customer_id, idempotency_key, content_hmac, key_id, token_sealed, book_id, currency,
        max_price_minor, conditions, traceparent, stage, due_at, event_seq, accepted_offer_of, turn
    )
    VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now(), cardinality($13::text[]), $15,
        greatest(
            now(),
            (
                SELECT max(q.turn) FROM orchestrator.purchase q
                WHERE q.customer_id = $2 AND q.turn IS NOT NULL AND q.due_at IS NOT NULL
            ) + $16 * interval '1 second'
        )
    )
    ON CONFLICT DO NOTHING
    RETURNING request_id, max_price_minor
),
payment AS (
    INSERT INTO orchestrator.payment (request_id, authorize_key, state, authorized_minor)
    SELECT s.request_id, s.request_id || ':authorize', 'intended', s.max_price_minor FROM submitted s
),
events AS (
    INSERT INTO orchestrator.purchase_event (request_id, seq, kind, body)
    SELECT s.request_id, e.seq, e.kind, e.body::jsonb
    FROM submitted s, unnest($13::text[], $14::text[]) WITH ORDINALITY AS e (kind, body, seq)
)
SELECT request_id FROM submitted
