-- registry_revision: the revision of the registry.
-- Result: revision, bigint.
SELECT revision FROM aggregator.registry
