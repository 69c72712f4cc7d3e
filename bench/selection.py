"""Whom to ask of ten thousand sellers: how good the choice is after a simulated day, and how true what is said of it.

Replays one day in ``bench/fleet``: ours is the policy ``thompson``, naive the weighted score; random is in the notes
and the drawing. A day at 20 requests a second is 1.7 million; here it is 12,000 (``REQUESTS=...`` in the environment
for another number) for as many books as are then asked for as often each. ``python -m bench.fleet`` has more to choose
from.
"""

from __future__ import annotations

import os

from bench.fleet.charts import regret_chart, reliability_chart
from bench.fleet.policies import POLICIES
from bench.fleet.replay import WHOLE_DAY, Plan
from bench.fleet.scores import NICHE_LIMIT, scaled
from bench.fleet.trial import trials
from bench.fleet.world import USUAL
from bench.harness import OnProgress, Result, Spread, exactly

TITLE = "whom to ask of 10,000 sellers"
REQUESTS = 12_000
MOST_CALLS_AIM = 150
MEDIAN_CALLS_AIM = 60
REGRET_AIM_PERCENT = 1.0
FOUND_AIM_PERCENT = 90.0
CALIBRATION_AIM_POINTS = 2.0
CHOOSING_AIM_MS = 5.0


async def measure(on_progress: OnProgress) -> list[Result]:
    """Replay the day with each policy; tell the part that is done."""
    requests = int(os.environ.get("REQUESTS", REQUESTS))
    plan = Plan(requests=requests, world=scaled(USUAL, requests, 1.0))
    summaries = await trials(plan, list(POLICIES), lambda done: on_progress(done / len(POLICIES)))
    ours, naive, anyone = summaries["thompson"], summaries["weighted"], summaries["random"]
    day = f"{requests:,} requests in a day of {WHOLE_DAY:,}, seed {plan.seed}, its last fifth"
    return [
        Result(
            name="most calls for a request",
            ours=exactly(ours.calls_max),
            naive=exactly(naive.calls_max),
            ratio=_ratio(ours.calls_max, naive.calls_max),
            unit="of 10,000",
            aim=MOST_CALLS_AIM,
            absolute=True,
            note="full collections, 1 % of all, which tell how true coverage is, are not counted",
        ),
        Result(
            name="median calls for a request",
            ours=exactly(ours.calls_median),
            naive=exactly(naive.calls_median),
            ratio=_ratio(ours.calls_median, naive.calls_median),
            unit="of 10,000",
            aim=MEDIAN_CALLS_AIM,
            absolute=True,
            note=f"means: {ours.calls_mean:.0f}, {naive.calls_mean:.0f}, random {anyone.calls_mean:.0f}",
        ),
        Result(
            name="mean regret against asking all 10,000",
            ours=exactly(ours.regret * 100),
            naive=exactly(naive.regret * 100),
            ratio=_ratio(ours.regret, naive.regret),
            unit="%",
            aim=REGRET_AIM_PERCENT,
            absolute=True,
            note=f"{day}; random {anyone.regret:.1%}",
            chart=regret_chart(summaries),
        ),
        Result(
            name="the cheapest seller is among those asked",
            ours=exactly(ours.found * 100),
            naive=exactly(naive.found * 100),
            ratio=_ratio(ours.found, naive.found),
            unit="%",
            aim=FOUND_AIM_PERCENT,
            absolute=True,
            at_least=True,
            note=f"random {anyone.found:.1%}; of the first 50 asked: {ours.found_at[50]:.1%}",
        ),
        Result(
            name="a niche's new cheapest seller is asked at last after",
            ours=exactly(max(ours.discovered, default=0)),
            naive=exactly(max(naive.discovered, default=0)),
            ratio=None,
            unit="requests for that niche",
            aim=NICHE_LIMIT,
            absolute=True,
            kept=ours.too_late == 0 and bool(ours.discovered),
            note=(
                f"found {len(ours.discovered)}, naive {len(naive.discovered)}, random {len(anyone.discovered)}; the day"
                f" ended before {NICHE_LIMIT} requests for {ours.undecided} others"
            ),
        ),
        Result(
            name="calibration error of the coverage statement",
            ours=exactly(ours.calibration_error * 100),
            naive=exactly(naive.calibration_error * 100),
            ratio=_ratio(ours.calibration_error, naive.calibration_error),
            unit="points",
            aim=CALIBRATION_AIM_POINTS,
            absolute=True,
            note=(
                f"saving where there was one: said {ours.said_saving:.1%}, true {ours.saving:.1%}"
                " (the same correction is at work for both policies)"
            ),
            chart=reliability_chart({"thompson": ours}),
        ),
        Result(
            name="CPU of choosing up to 150 of 10,000, all phases of a request",
            ours=exactly(ours.choosing_median_s * 1e3),
            naive=exactly(naive.choosing_median_s * 1e3),
            ratio=_ratio(ours.choosing_median_s, naive.choosing_median_s),
            unit="ms",
            aim=CHOOSING_AIM_MS,
            absolute=True,
            note=f"p99 {ours.choosing_p99_s * 1e3:.1f} ms",
        ),
    ]


def _ratio(ours: float, naive: float) -> Spread | None:
    return exactly(ours / naive) if naive else None
