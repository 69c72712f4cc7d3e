-- write_order: keeps an order, replacing what was kept under its key.
-- ?1 seller_id, ?2 idempotency_key, ?3 content, ?4 buyer_reference, ?5 book_id, ?6 condition, ?7 answer, ?8 state,
-- ?9 created_us, ?10 updated_us, ?11 too_late
INSERT OR REPLACE INTO book_order (
    seller_id, idempotency_key, content, buyer_reference, book_id, condition, answer, state,
    created_us, updated_us, too_late
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11);
