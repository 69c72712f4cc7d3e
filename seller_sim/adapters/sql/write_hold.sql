-- write_hold: keeps a hold, replacing what was kept under its key.
-- ?1 seller_id, ?2 idempotency_key, ?3 content, ?4 book_id, ?5 condition, ?6 answer, ?7 state
INSERT OR REPLACE INTO hold (seller_id, idempotency_key, content, book_id, condition, answer, state)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);
