-- clear_refund: forgets all refunds.
DELETE FROM refund
