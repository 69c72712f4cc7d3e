"""Collects quotes from sellers, and owns the registry of sellers."""
