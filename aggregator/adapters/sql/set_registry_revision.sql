-- set_registry_revision: ends a change of sellers, under the lock of lock_registry.
-- $1 revision, bigint.
UPDATE aggregator.registry SET revision = $1
