-- An address is told by e-mail once its owner has sent back the code that was mailed to it. Those set before stay in force.
CREATE TABLE orchestrator.email_code (
    code_id          uuid        PRIMARY KEY,
    customer_id      text        NOT NULL,
    email            text        NOT NULL,
    key_id           text        NOT NULL,      -- the key of the keyring that code_sealed is under
    code_sealed      bytea       NOT NULL,      -- what was mailed, encrypted
    open             boolean     NOT NULL DEFAULT true,     -- neither used, nor superseded by a later one
    tries            integer     NOT NULL DEFAULT 0,        -- codes that were compared with it
    sent_at          timestamptz NOT NULL DEFAULT now()
);

-- How many were sent lately: for a customer, and to an address.
CREATE INDEX email_code_of_customer ON orchestrator.email_code (customer_id, sent_at);
CREATE INDEX email_code_of_address ON orchestrator.email_code (lower(email), sent_at);
CREATE INDEX email_code_sent ON orchestrator.email_code (sent_at);
