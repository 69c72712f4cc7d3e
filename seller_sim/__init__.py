"""Simulated sellers that implement the published contract, honest or hostile, for demo and tests."""
