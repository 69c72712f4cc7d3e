-- read_event: one event.
-- :event_id
SELECT body FROM event WHERE event_id = :event_id
