"""The world as the orchestrator reaches it: PostgreSQL, Valkey, the aggregator, sellers, payment providers."""
