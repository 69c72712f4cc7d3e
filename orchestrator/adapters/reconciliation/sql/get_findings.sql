-- get_findings: what a comparison has found, in its order.
-- $1 run_id uuid
-- Result: number, kind, invariant, request_id, seller_id, provider_id, order_key, amount_minor, currency, began_at,
-- detail, advice, done, note.
SELECT
    number, kind, invariant, request_id, seller_id, provider_id, order_key, amount_minor, currency, began_at, detail,
    advice, done, note
FROM orchestrator.reconciliation_finding
WHERE run_id = $1
ORDER BY number
