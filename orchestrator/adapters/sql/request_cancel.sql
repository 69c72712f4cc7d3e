-- request_cancel: notes that a customer wants a purchase cancelled, once, while its status is not final.
-- $1 request_id uuid   $2 customer_id text   $3 event body text (JSON)
-- Result: request_id, or none when nothing was noted.
WITH asked AS (
    UPDATE orchestrator.purchase SET
        cancel_requested_at = now(),
        event_seq = event_seq + 1,
        turn = NULL,
        due_at = CASE WHEN owner IS NULL AND due_at IS NOT NULL THEN now() ELSE due_at END
    WHERE request_id = $1 AND customer_id = $2 AND status = 'pending' AND cancel_requested_at IS NULL
    RETURNING request_id, event_seq
),
event AS (
    INSERT INTO orchestrator.purchase_event (request_id, seq, kind, body)
    SELECT a.request_id, a.event_seq, 'step', $3::text::jsonb FROM asked a
)
SELECT request_id FROM asked
