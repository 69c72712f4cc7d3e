-- step_back: leaves a message that could not be spread alone for a while.
-- $1 message_id uuid   $2 delay double precision (seconds)
-- Result: nothing.
UPDATE orchestrator.outbox SET spread_after = now() + $2 * interval '1 second'
WHERE message_id = $1 AND spread_at IS NULL
