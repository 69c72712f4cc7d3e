"""How a customer is shown a purchase: the same in an answer of the gateway and in a webhook of the orchestrator."""
