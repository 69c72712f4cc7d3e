"""The RPCs of the published contract, at each seller's address, and of the control contract."""
