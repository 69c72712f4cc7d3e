-- The sandbox payment provider gives money back, lets reservations lapse, and lists its payments by age.

ALTER TABLE sandbox_provider.payment_authorization
    ADD COLUMN refunded_minor bigint      NOT NULL DEFAULT 0,
    ADD COLUMN capture_before timestamptz,     -- a reservation lapses then; null: never
    ADD CHECK (refunded_minor BETWEEN 0 AND captured_minor);

CREATE INDEX ON sandbox_provider.payment_authorization (created_at, authorization_id);
