-- clear_idempotency_key: forgets all answers kept under keys.
DELETE FROM idempotency_key
