"""A few purchases on the local mesh while each of its parts is killed, or stopped for too long: all books agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.books import story
from tests.chaos.faults import Fault, plan
from tests.chaos.run import Options, Progress, run

PURCHASES = 40
SEED = 4
EVERY_S = 1.2


@pytest.mark.timeout(240)
async def test_every_book_agrees_after_every_kind_of_fault(tmp_path: Path) -> None:
    every_kind = list(Fault)
    options = Options(
        seed=SEED,
        purchases=PURCHASES,
        rate=PURCHASES / (EVERY_S * len(every_kind)),
        customers=5,
        faults=len(every_kind),
        data=tmp_path / "mesh",
    )
    outcome = await run(options, plan(SEED, EVERY_S, every_kind), Progress(PURCHASES))
    stories = {
        violation.request_id: story(outcome.books, violation.request_id)
        for violation in outcome.violations
    }
    assert (outcome.violations, outcome.totals.apart) == ([], 0), stories
    assert {made.fault for made in outcome.faults} == set(every_kind)
    assert len(outcome.books.purchases) == len(outcome.books.told) >= PURCHASES
    assert outcome.totals.ours > 0
