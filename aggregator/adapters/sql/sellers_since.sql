-- sellers_since: the sellers that changed after a revision, as they are now.
-- $1 revision, bigint; 0 for all sellers.
-- Result: seller_id, display_name, endpoint, tls_roots, credential_reference, capabilities (JSON text), state,
--         revision (bigint).
SELECT
    seller_id, display_name, endpoint, tls_roots, credential_reference, capabilities::text AS capabilities, state,
    revision
FROM aggregator.seller
WHERE revision > $1::bigint
ORDER BY seller_id
