"""Who has an affordable quote stops when the others are not worth the wait; nobody else does."""

from __future__ import annotations

from random import Random

import pytest

from aggregator.app.collect import Wish
from aggregator.domain.collection import MissReason
from aggregator.domain.stopping import Policy
from sellers.model import QuoteOutcome, Unavailable, UnavailableReason
from tests.fakes.asking import (
    Fleet,
    Process,
    Says,
    fleet,
    in_virtual_time,
    question,
    quoted,
    seller,
)

HASTY = [Policy.FAST, Policy.BALANCED]
SELLERS = [seller(f"s{number}") for number in range(10)]
DEAD = seller("dead")


def always(outcome: QuoteOutcome) -> Says:
    return lambda _book: outcome


async def trained(mesh: Fleet) -> Process:
    """Start a process that knows its sellers: ten answer within 0.1 s, with prices that hardly differ; one is dead."""
    rng = Random(1)
    for one in SELLERS:
        mesh.sellers.latency_s[one.seller_id] = rng.uniform(0.05, 0.1)
        price = rng.randint(1990, 2010)
        mesh.sellers.says[one.seller_id] = always(quoted(price))
    mesh.sellers.latency_s[DEAD.seller_id] = 60.0
    process = await mesh.process()
    for number in range(10):
        await process.collect(f"before-{number}")
    return process


@pytest.mark.parametrize("policy", HASTY)
def test_who_has_an_affordable_quote_does_not_wait_for_the_dead(policy: Policy) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(*SELLERS, DEAD) as mesh:
            process = await trained(mesh)
            result = await process.collect(wish=Wish(policy=policy, affordable_minor=2050))
            assert result.misses["dead"] is MissReason.STOPPED
            assert result.elapsed_s < 0.5
            assert min(quote_of(result.answers)) == min(
                quote_of((await process.collect(wish=Wish(fresh=True))).answers)
            )

    def quote_of(answers: object) -> list[int]:
        assert isinstance(answers, dict)
        return [
            answer.outcome.total.minor
            for answer in answers.values()
            if hasattr(answer.outcome, "total")
        ]

    main()


@in_virtual_time
async def test_best_price_waits_for_all_it_can_get() -> None:
    async with fleet(*SELLERS, DEAD) as mesh:
        process = await trained(mesh)
        result = await process.collect(wish=Wish(policy=Policy.BEST_PRICE, affordable_minor=2050))
        assert result.misses == {"dead": MissReason.TIMED_OUT}
        assert result.elapsed_s > 2


@pytest.mark.parametrize("policy", HASTY)
def test_who_cannot_afford_any_quote_waits_to_the_end(policy: Policy) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(*SELLERS, DEAD) as mesh:
            process = await trained(mesh)
            result = await process.collect(
                wish=Wish(policy=policy, affordable_minor=1000), time_left_s=2.5
            )
            assert result.misses == {"dead": MissReason.TIMED_OUT}
            assert result.elapsed_s == pytest.approx(2.35)

    main()


@pytest.mark.parametrize("policy", HASTY)
def test_who_has_no_quote_at_all_waits_to_the_end(policy: Policy) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(*SELLERS, DEAD) as mesh:
            process = await trained(mesh)
            for one in SELLERS:
                mesh.sellers.says[one.seller_id] = lambda _: Unavailable(
                    UnavailableReason.OUT_OF_STOCK
                )
            result = await process.collect(wish=Wish(policy=policy), time_left_s=2.5)
            assert result.misses["dead"] is MissReason.TIMED_OUT

    main()


@in_virtual_time
async def test_the_affordable_quote_may_come_at_any_time() -> None:
    async with fleet(*SELLERS, DEAD) as mesh:
        process = await trained(mesh)
        mesh.sellers.says["s0"] = lambda _: quoted(900)
        mesh.sellers.latency_s["s0"] = 1.0
        wish = Wish(policy=Policy.FAST, affordable_minor=1000)
        result = await process.collect(wish=wish)
        assert "s0" in result.quoted
        assert 1.0 <= result.elapsed_s < 1.5


@in_virtual_time
async def test_a_seller_that_is_usually_much_cheaper_is_waited_for() -> None:
    async with fleet(*SELLERS, seller("bargain")) as mesh:
        mesh.sellers.latency_s["bargain"] = 1.0
        mesh.sellers.says["bargain"] = lambda _: quoted(1500)
        process = await trained(mesh)
        result = await process.collect(wish=Wish(policy=Policy.BALANCED))
        assert "bargain" in result.quoted


@in_virtual_time
async def test_a_seller_that_is_usually_much_dearer_is_not() -> None:
    async with fleet(*SELLERS, seller("dear")) as mesh:
        mesh.sellers.latency_s["dear"] = 1.0
        mesh.sellers.says["dear"] = lambda _: quoted(3500)
        process = await trained(mesh)
        result = await process.collect(wish=Wish(policy=Policy.BALANCED))
        assert result.misses == {"dear": MissReason.STOPPED}
        assert result.elapsed_s < 0.5


@in_virtual_time
async def test_who_stops_stops_for_itself_alone() -> None:
    async with fleet(*SELLERS, DEAD) as mesh:
        process = await trained(mesh)
        async with process.collector.open(
            question("shared"), 10.0, Wish(policy=Policy.BEST_PRICE)
        ) as patient:
            hasty = await process.collect("shared", wish=Wish(policy=Policy.FAST))
            assert hasty.misses == {"dead": MissReason.STOPPED}
            assert mesh.sellers.calls_to("dead")[-1].ended == ""
            assert sum([len(batch) async for batch in patient.batches()]) == len(SELLERS) + 1


@pytest.mark.parametrize("policy", HASTY)
def test_an_absurdly_low_quote_ends_nobody_s_collection(policy: Policy) -> None:
    """Be it the first, or among the others."""

    @in_virtual_time
    async def main() -> None:
        async with fleet(*SELLERS, seller("penny")) as mesh:
            process = await trained(mesh)
            mesh.sellers.says["penny"] = always(quoted(1))
            for latency_s in (0.0, 0.07):
                mesh.sellers.latency_s["penny"] = latency_s
                wish = Wish(policy=policy, affordable_minor=2050, fresh=True)
                result = await process.collect(f"after-{latency_s}", wish=wish)
                assert len(result.quoted) > len(SELLERS) / 2
            wish = Wish(policy=policy, affordable_minor=1000, fresh=True)
            mesh.sellers.latency_s["s0"] = 2.0
            assert (await process.collect(wish=wish)).misses == {}, "nothing was affordable"

    main()
