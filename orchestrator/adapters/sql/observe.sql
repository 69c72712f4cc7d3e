-- observe: notes what somebody tells of a purchase, for the worker that claims it next.
-- $1 request_id uuid   $2 kind text   $3 body text (JSON)   $4 observed_by text
-- Result: number of the observation, or none when there is no such purchase.
WITH told AS (
    UPDATE orchestrator.purchase SET
        observation_seq = observation_seq + 1,
        turn = NULL,
        due_at = CASE WHEN owner IS NULL THEN now() ELSE due_at END
    WHERE request_id = $1
    RETURNING request_id, observation_seq
)
INSERT INTO orchestrator.observation (request_id, number, kind, body, observed_by)
SELECT t.request_id, t.observation_seq, $2, $3::text::jsonb, $4 FROM told t
RETURNING number
