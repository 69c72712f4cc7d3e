"""Measurements: each compares what is here with a straightforward solution, in one run."""
