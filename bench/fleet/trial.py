"""Tries policies on the same plan, one on each core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bench.fleet.policies import policy
from bench.fleet.replay import Plan, replay
from bench.fleet.scores import Summary, summary
from bench.workers import workers


def run(plan: Plan, name: str) -> Summary:
    """Replay one policy."""
    return summary(replay(plan, policy(name)))


async def trials(
    plan: Plan, names: Sequence[str], on_done: Callable[[int], None] | None = None
) -> dict[str, Summary]:
    """Replay the same with each of some policies; tell how many are done."""
    done = 0
    async with workers() as in_worker:

        async def replayed(name: str) -> Summary:
            nonlocal done
            result = await in_worker(run, plan, name)
            done += 1
            if on_done:
                on_done(done)
            return result

        results = await asyncio.gather(*map(replayed, names))
    return dict(zip(names, results, strict=True))
