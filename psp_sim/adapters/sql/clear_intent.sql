-- clear_intent: forgets all intents.
DELETE FROM intent
