-- The registry of sellers.

CREATE SCHEMA aggregator;

-- One row. Whoever changes sellers locks it first and counts it up in the same transaction, so that revisions become
-- visible in their order: a reader that has seen revision n has seen every change up to n.
CREATE TABLE aggregator.registry (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL CHECK (revision >= 0)
);

INSERT INTO aggregator.registry (revision) VALUES (0);

CREATE TABLE aggregator.seller (
    seller_id            text PRIMARY KEY CHECK (seller_id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    display_name         text NOT NULL,
    -- host:port
    endpoint             text NOT NULL,
    -- PEM, 'system', or empty for no TLS
    tls_roots            text NOT NULL,
    -- a name in the services' credentials file, never the credential
    credential_reference text NOT NULL CHECK (credential_reference <> ''),
    -- the fields of sellers.model.Capabilities
    capabilities         jsonb NOT NULL,
    state                text NOT NULL CHECK (state IN ('active', 'draining', 'disabled')),
    -- the registry's revision that last changed this row
    revision             bigint NOT NULL
);

-- For readers that follow the changes.
CREATE INDEX seller_revision ON aggregator.seller (revision);
