-- write_event: keeps an event that is to be delivered.
-- :event_id :body (JSON)
INSERT INTO event (event_id, body, delivered) VALUES (:event_id, :body, 0)
