-- set_delivered: says whether an event was delivered.
-- :event_id :delivered (0 or 1)
UPDATE event SET delivered = :delivered WHERE event_id = :event_id
