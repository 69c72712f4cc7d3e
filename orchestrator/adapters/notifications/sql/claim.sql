-- claim: begins a try of deliveries that are due: of each receiver as many as it has room for, of many receivers before
-- many of one. Receivers whose last try failed have room for one at a time, and a share of their own in the whole.
-- $1 room integer (for receivers that answer)   $2 room_troubled integer (for receivers whose last try failed)
-- $3 per_lane integer (most at once to a receiver that answers)   $4 lease double precision (seconds)
-- $5 lanes uuid[], $6 counts integer[]: what this process has under way
-- Result: of each delivery delivery_id, tries (this one included), message_id, lane, receiver, content, troubled; of its
-- endpoint enabled (false where there is none), key_id, secret_sealed, previous_key_id, previous_sealed (NULL once it is not in
-- force any more).
WITH RECURSIVE lane (lane) AS (
    -- a walk from lane to lane along the index delivery_due, a probe each
    (SELECT d.lane FROM orchestrator.delivery d WHERE d.next_try_at IS NOT NULL ORDER BY d.lane LIMIT 1)
    UNION ALL
    SELECT (
        SELECT d.lane FROM orchestrator.delivery d
        WHERE d.next_try_at IS NOT NULL AND d.lane > l.lane ORDER BY d.lane LIMIT 1
    )
    FROM lane l WHERE l.lane IS NOT NULL
),
open_lane AS (
    SELECT
        l.lane,
        coalesce(e.failures, 0) > 0 AS troubled,
        greatest(0, CASE WHEN e.failures > 0 THEN 1 ELSE $3::integer END - coalesce(b.count, 0)) AS room
    FROM lane l
    LEFT JOIN orchestrator.webhook_endpoint e ON e.endpoint_id = l.lane
    LEFT JOIN unnest($5::uuid[], $6::integer[]) AS b (lane, count) ON b.lane = l.lane
    WHERE l.lane IS NOT NULL
),
due AS (
    SELECT o.troubled, c.delivery_id, c.next_try_at
    FROM open_lane o
    CROSS JOIN LATERAL (
        SELECT d.delivery_id, d.next_try_at FROM orchestrator.delivery d
        WHERE d.lane = o.lane AND d.next_try_at <= now()
        ORDER BY d.next_try_at LIMIT o.room FOR UPDATE SKIP LOCKED
    ) c
),
taken AS (
    SELECT r.delivery_id, r.troubled
    FROM (
        SELECT d.*, row_number() OVER (PARTITION BY d.troubled ORDER BY d.next_try_at) AS place FROM due d
    ) r
    WHERE r.place <= CASE WHEN r.troubled THEN $2::integer ELSE $1::integer END
),
begun AS (
    UPDATE orchestrator.delivery d
    SET tries = d.tries + 1, last_try_at = now(), next_try_at = now() + $4 * interval '1 second'
    FROM taken t
    WHERE d.delivery_id = t.delivery_id
    RETURNING d.delivery_id, d.tries, d.message_id, d.lane, d.receiver, d.content, t.troubled
)
SELECT
    b.delivery_id, b.tries, b.message_id, b.lane, b.receiver, b.content, b.troubled,
    e.disabled_reason IS NULL AND e.endpoint_id IS NOT NULL AS enabled, e.key_id, e.secret_sealed,
    CASE WHEN e.previous_until > now() THEN e.previous_key_id END AS previous_key_id,
    CASE WHEN e.previous_until > now() THEN e.previous_sealed END AS previous_sealed
FROM begun b
LEFT JOIN orchestrator.webhook_endpoint e ON e.endpoint_id = b.lane
