-- lock_registry: the revision of the registry; nobody else changes sellers until this transaction ends.
-- Result: revision, bigint.
SELECT revision FROM aggregator.registry FOR UPDATE
