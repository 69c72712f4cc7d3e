-- clear_event: forgets all events.
DELETE FROM event
