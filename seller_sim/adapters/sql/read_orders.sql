-- read_orders: gives all orders: seller_id, idempotency_key, content, buyer_reference, book_id, condition, answer,
-- state, created_us, updated_us, too_late.
SELECT
    seller_id, idempotency_key, content, buyer_reference, book_id, condition, answer, state,
    created_us, updated_us, too_late
FROM book_order;
