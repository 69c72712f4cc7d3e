-- claim_capability_checks: takes sellers that have not been asked for long what they can do; nobody else takes them now.
-- $1 older_than double precision (seconds)
-- $2 most integer (sellers)
-- Result: seller_id of each that was taken.
UPDATE aggregator.seller s
SET capabilities_checked_at = now()
FROM (
    SELECT seller_id FROM aggregator.seller
    WHERE state <> 'disabled' AND capabilities_checked_at < now() - $1 * interval '1 second'
    ORDER BY capabilities_checked_at LIMIT $2 FOR UPDATE SKIP LOCKED
) stale
WHERE s.seller_id = stale.seller_id
RETURNING s.seller_id
