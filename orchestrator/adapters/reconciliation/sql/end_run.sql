-- end_run: records what a comparison has found, unless it was begun again since.
-- $1 run_id uuid   $2 starts integer   $3 outcome text   $4 purchases, $5 payments, $6 orders, $7 sellers bigint
-- $8 gaps text (JSON)   $9 findings text (JSON: a list of findings, each with its columns by name)
-- Result: run_id; none when it was begun again.
WITH ended AS (
    UPDATE orchestrator.reconciliation_run SET
        ended_at = now(), outcome = $3, purchases = $4, payments = $5, orders = $6, sellers = $7,
        gaps = $8::text::jsonb
    WHERE run_id = $1 AND starts = $2 AND ended_at IS NULL
    RETURNING run_id
),
findings AS (
    INSERT INTO orchestrator.reconciliation_finding (
        run_id, number, kind, invariant, request_id, seller_id, provider_id, order_key, amount_minor, currency,
        began_at, detail, advice, done, note
    )
    SELECT
        e.run_id, f.number, f.kind, f.invariant, f.request_id, f.seller_id, f.provider_id, f.order_key, f.amount_minor,
        f.currency, f.began_at, f.detail, f.advice, f.done, f.note
    FROM ended e, jsonb_to_recordset($9::text::jsonb) AS f (
        number integer, kind text, invariant text, request_id uuid, seller_id text, provider_id text, order_key text,
        amount_minor bigint, currency text, began_at timestamptz, detail text, advice text, done text, note text
    )
)
SELECT run_id FROM ended
