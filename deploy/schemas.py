"""Who keeps tables in PostgreSQL."""

OWNERS_OF_SCHEMAS = ("aggregator", "orchestrator")
"""The packages with migrations, in the order in which they are applied."""
