-- busy: whether a worker still has to act on what it was told of some purchases.
-- $1 uuid[]: which
-- Result: busy boolean.
SELECT EXISTS (
    SELECT FROM orchestrator.purchase
    WHERE request_id = ANY ($1::uuid[])
        AND (
            observation_seq > observed_seq
            OR due_at IS NOT NULL AND stage NOT IN ('release', 'offer', 'done', 'flagged')
        )
) AS busy
