"""A policy of one's own, to copy: ``python -m bench.fleet --policy bench.fleet.example_policy:KnownFirst``.

A policy is a class with a name and ``choose``. What it may look at is in ``View`` (aggregator/selection/policy.py):
columns by seller of what was learned, and what is believed of each seller for this book. It sees nothing of the
simulated world.
"""

from __future__ import annotations

import numpy as np

from aggregator.selection.columns import Rows, State
from aggregator.selection.policy import View, highest


class KnownFirst:
    """Who had this very book when last asked, the cheapest first; then who most often has books of its category."""

    name = "known first"

    def choose(self, view: View, count: int, rng: np.random.Generator) -> Rows:
        # By row: the higher, the sooner it is asked. Who is as good as another is asked as often.
        scores = rng.random(len(view.open), np.float32) * np.float32(0.01)
        if view.category is not None:
            scores += view.category.had / np.maximum(view.category.asked, np.float32(1.0))
        if view.book is not None:
            had = view.book.state == State.IN_STOCK
            totals = view.book.total_minor[had]
            scores[view.book.rows[had]] = 2.0 + 1.0 / np.maximum(totals, 1)
        return highest(scores, view.open, count)
