"""The straightforward solutions, written honestly: what one would write first, without our bookkeeping."""
