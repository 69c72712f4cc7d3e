"""HTTP, webhooks and the ledger of the simulated provider."""
