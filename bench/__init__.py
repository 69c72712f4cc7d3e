"""Measurements: our way and the straightforward one, side by side in one run.

One module a measurement, listed in ``__main__``; the straightforward solutions are in ``naive``. Machines are noisy, so
what counts is the ratio of two things that took turns.
"""
