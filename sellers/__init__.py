"""The way to a seller; used by aggregator and orchestrator."""
