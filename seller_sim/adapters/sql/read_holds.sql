-- read_holds: gives all holds: seller_id, idempotency_key, content, book_id, condition, answer, state.
SELECT seller_id, idempotency_key, content, book_id, condition, answer, state
FROM hold;
