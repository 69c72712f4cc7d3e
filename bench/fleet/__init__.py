"""Ten thousand simulated sellers in virtual time, and policies that choose whom to ask: see docs/selection.md."""
