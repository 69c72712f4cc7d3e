-- What an operator has given back in part, by hand, stays captured; how much was given back is kept.

ALTER TABLE orchestrator.payment
    DROP CONSTRAINT payment_refunded_known,
    ADD CONSTRAINT payment_refunded_known CHECK (
        CASE state WHEN 'refunded' THEN refunded_minor IS NOT NULL WHEN 'captured' THEN true ELSE refunded_minor IS NULL END
    );
