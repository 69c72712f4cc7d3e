"""What the simulated provider decides."""
