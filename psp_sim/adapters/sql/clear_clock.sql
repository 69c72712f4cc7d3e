-- clear_clock: forgets that the clock was set forward.
DELETE FROM clock
