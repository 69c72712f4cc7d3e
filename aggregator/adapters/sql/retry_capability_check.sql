-- retry_capability_check: lets a seller that could not be asked have its turn again sooner.
-- $1 seller_id text
-- $2 checked_ago double precision (seconds ago that it counts as asked)
-- No result.
UPDATE aggregator.seller
SET capabilities_checked_at = now() - $2 * interval '1 second'
WHERE seller_id = $1
