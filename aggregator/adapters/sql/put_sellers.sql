-- put_sellers: adds sellers, or replaces what is known of them; those of which nothing changes are left alone. One whose
-- endpoint changes is soon asked what it can do.
-- $1 .. $7 arrays of the same length, one element a seller: seller_id, display_name, endpoint, tls_roots,
--          credential_reference, capabilities (JSON text), state.
-- $8       revision that those that change get, bigint.
-- Result: seller_id of each that was added or changed.
INSERT INTO aggregator.seller AS known (
    seller_id, display_name, endpoint, tls_roots, credential_reference, capabilities, state, revision
)
SELECT
    given.seller_id, given.display_name, given.endpoint, given.tls_roots, given.credential_reference,
    given.capabilities::jsonb, given.state, $8::bigint
FROM
    unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS given (seller_id, display_name, endpoint, tls_roots, credential_reference, capabilities, state)
ON CONFLICT (seller_id) DO UPDATE SET
    display_name = excluded.display_name,
    endpoint = excluded.endpoint,
    tls_roots = excluded.tls_roots,
    credential_reference = excluded.credential_reference,
    capabilities = excluded.capabilities,
    state = excluded.state,
    revision = excluded.revision,
    capabilities_checked_at = CASE
        WHEN known.endpoint = excluded.endpoint THEN known.capabilities_checked_at ELSE '-infinity'
    END
WHERE
    (known.display_name, known.endpoint, known.tls_roots, known.credential_reference, known.capabilities, known.state)
    IS DISTINCT FROM (
        excluded.display_name, excluded.endpoint, excluded.tls_roots, excluded.credential_reference,
        excluded.capabilities, excluded.state
    )
RETURNING known.seller_id
