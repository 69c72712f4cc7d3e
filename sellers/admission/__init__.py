"""Admission to sellers: how often, how many at once, and whether they work at all."""
