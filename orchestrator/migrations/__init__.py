"""The orchestrator's migrations, in the order of their numbers."""
