-- The ledger of the sandbox payment provider: another company's books, kept here because it runs with us. Nothing of
-- ours but its adapter reads or writes it.

CREATE SCHEMA sandbox_provider;

CREATE TABLE sandbox_provider.payment_authorization (
    authorization_id text        PRIMARY KEY,
    token_kind       text        NOT NULL,      -- which of the sandbox's tokens it was; never a customer's token
    currency         text        NOT NULL,
    authorized_minor bigint      NOT NULL CHECK (authorized_minor > 0),
    captured_minor   bigint      NOT NULL DEFAULT 0 CHECK (captured_minor BETWEEN 0 AND authorized_minor),
    captures         integer     NOT NULL DEFAULT 0,
    state            text        NOT NULL CHECK (state IN ('authorized', 'captured', 'voided')),
    reference        text        NOT NULL,      -- the merchant's name for the payment
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- First answers by idempotency key.
CREATE TABLE sandbox_provider.idempotency_key (
    key              text        PRIMARY KEY,
    content          text        NOT NULL,
    answer           jsonb       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
