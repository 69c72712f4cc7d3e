-- due_events: events that are to be delivered, oldest first.
SELECT event_id, body FROM event WHERE delivered = 0 ORDER BY seq LIMIT 100
