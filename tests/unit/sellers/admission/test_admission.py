"""One process's admission, over a ledger of the fleet that can be switched off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from bench.virtual_time import VirtualClock, run_virtually
from sellers.admission import admission as admission_module
from sellers.admission.admission import Admission, rules_of
from sellers.admission.ledger import Ledger, Report, Request, Standing, Verdict
from sellers.admission.model import (
    AdmissionSettings,
    Allowed,
    Ask,
    BreakerState,
    Decision,
    Limits,
    Outcome,
    Purpose,
    Reason,
    Refused,
    Wait,
)
from sellers.admission.valkey import FleetUnavailable
from tests.fakes.measures import Measures

SELLER = Limits("seller", 100)
SETTINGS = AdmissionSettings(processes=4, calls_at_once=1000)


class Fleet:
    """Implements ``FleetLedger`` over the twin."""

    def __init__(self, settings: AdmissionSettings = SETTINGS) -> None:
        self._clock = VirtualClock()
        self.ledger = Ledger(rules_of(settings))
        self.answers = True
        self.asked = 0
        self.reports: list[Report] = []

    def now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _check(self) -> None:
        self.asked += 1
        if not self.answers:
            raise FleetUnavailable("switched off")

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        self._check()
        return self.ledger.admit(self.now_ms(), requests)

    async def report(self, reports: Sequence[Report]) -> None:
        self._check()
        self.reports += reports
        self.ledger.report(self.now_ms(), reports)

    async def standings(self, seller_ids: Sequence[str]) -> list[Standing]:
        self._check()
        return self.ledger.standings(self.now_ms(), seller_ids)


class House:
    """An admission with a quiet past, and what it asks."""

    def __init__(self, settings: AdmissionSettings = SETTINGS, *, quiet: bool = True) -> None:
        self.clock = VirtualClock()
        self.fleet = Fleet(settings)
        self.fleet.ledger.declare_quiet(self.fleet.now_ms())
        self.admission = Admission(
            self.fleet, self.clock, settings, sellers=lambda: [SELLER], quiet=quiet
        )

    async def ask(
        self, purpose: Purpose = Purpose.QUOTE, count: int = 1, wait_s: float = 0.0
    ) -> list[Decision]:
        ask = Ask(SELLER, timeout_s=1.0, wait_s=wait_s)
        return [(await self.admission.admit([ask], purpose))[0] for _ in range(count)]

    async def call(self, outcome: Outcome, purpose: Purpose = Purpose.QUOTE) -> None:
        [decision] = await self.ask(purpose)
        assert isinstance(decision, Allowed)
        self.admission.report(decision.grant, outcome)
        await self.admission.flush()


def allowed(decisions: Sequence[Decision]) -> list[Allowed]:
    return [decision for decision in decisions if isinstance(decision, Allowed)]


def test_quotes_leave_the_reserve_to_purchases() -> None:
    async def main() -> None:
        house = House()
        quotes = allowed(await house.ask(Purpose.QUOTE, 101))
        purchases = allowed(await house.ask(Purpose.PURCHASE, 101))
        # 80 by the fleet, 64 of them for quotes; 5 of this process's own.
        assert [sum(one.grant.from_fleet for one in each) for each in (quotes, purchases)] == [
            64,
            16,
        ]
        assert len(quotes) + len(purchases) == 85
        assert quotes[0].calls_left == 63

    run_virtually(main())


def test_what_was_bought_out_of_the_reserve_is_not_kept_free_a_second_time() -> None:
    async def main() -> None:
        house = House()
        for purchases in (10, 10):
            assert len(allowed(await house.ask(Purpose.PURCHASE, purchases))) == purchases
        quotes = allowed(await house.ask(Purpose.QUOTE, 101))
        # 16 of the 20 out of the reserve, 4 out of what quotes may use too.
        assert sum(one.grant.from_fleet for one in quotes) == 60
        assert [(one.calls_left, one.calls_used) for one in quotes[:2]] == [(59, 5), (58, 6)]

    run_virtually(main())


def test_own_share_is_spent_after_the_fleets_and_serves_while_valkey_is_gone() -> None:
    async def main() -> None:
        house = House()
        house.fleet.answers = False
        decisions = await house.ask(count=20)
        assert len(allowed(decisions)) == 5
        assert not any(one.grant.from_fleet for one in allowed(decisions))
        assert house.fleet.asked == 1
        assert not house.admission.fleet_answers

    run_virtually(main())


def test_a_process_with_an_unknown_past_keeps_off_its_own_share_until_it_has_warmed_up() -> None:
    async def main() -> None:
        house = House(quiet=False)
        house.fleet.answers = False
        [decision] = await house.ask()
        assert decision == Refused(Reason.WARMING_UP, SETTINGS.rejoin_every_s), "Valkey may be back"
        await asyncio.sleep(SETTINGS.hope_s)
        [decision] = await house.ask()
        assert isinstance(decision, Refused)
        assert decision.reason is Reason.WARMING_UP
        assert decision.after_s == pytest.approx(65.001 - SETTINGS.hope_s)
        await asyncio.sleep(63.01)
        assert len(allowed(await house.ask(count=20))) == 5

    run_virtually(main())


def test_running_it_finds_valkey_again() -> None:
    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.admission.run())
        house.fleet.answers = False
        await house.ask()
        await asyncio.sleep(5)
        assert not house.admission.fleet_answers
        house.fleet.answers = True
        await asyncio.sleep(SETTINGS.rejoin_every_s + 0.01)
        [decision] = await house.ask()
        assert isinstance(decision, Allowed)
        assert decision.grant.from_fleet
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtually(main())


def test_a_wait_that_the_caller_can_afford_is_a_wait_else_a_refusal() -> None:
    async def main() -> None:
        house = House()
        for one in allowed(await house.ask(Purpose.QUOTE, 80)):
            house.admission.report(one.grant, Outcome.SUCCESS)
        await house.admission.flush()
        [short] = await house.ask(wait_s=10)
        [long] = await house.ask(wait_s=70)
        [resolving] = await house.ask(Purpose.RESOLVE)
        assert short == Refused(Reason.NO_BUDGET, 61.0)
        assert isinstance(long, Wait)
        assert (long.after_s, long.reason) == (61.0, Reason.NO_BUDGET)
        assert isinstance(resolving, Allowed)

    run_virtually(main())


def test_a_resolving_call_waits_as_long_as_it_takes() -> None:
    async def main() -> None:
        house = House()
        for one in allowed(await house.ask(Purpose.PURCHASE, 100)):
            house.admission.report(one.grant, Outcome.SUCCESS)
        await house.admission.flush()
        ask = Ask(SELLER, timeout_s=1.0)
        start = house.clock.monotonic()
        got = await house.admission.acquire(ask, Purpose.RESOLVE, until=start + 300)
        assert isinstance(got, Allowed)
        assert house.clock.monotonic() - start == pytest.approx(61.0, abs=0.01)
        for one in allowed(await house.ask(Purpose.PURCHASE, 100)):
            house.admission.report(one.grant, Outcome.SUCCESS)
        late = await house.admission.acquire(
            ask, Purpose.RESOLVE, until=house.clock.monotonic() + 20
        )
        assert isinstance(late, Refused)
        assert house.clock.monotonic() - start == pytest.approx(81.0, abs=0.01)

    run_virtually(main())


def test_more_books_than_the_limit_allows_at_all_are_refused() -> None:
    async def main() -> None:
        house = House()
        ask = Ask(Limits("seller", 100, 50), timeout_s=1.0, books=41, wait_s=1000.0)
        [decision] = await house.admission.admit([ask], Purpose.QUOTE)
        assert decision == Refused(Reason.NO_BUDGET, float("inf"))
        smaller = Ask(Limits("seller", 100, 50), timeout_s=1.0, books=30, wait_s=1000.0)
        decisions = await house.admission.admit([smaller, smaller], Purpose.QUOTE)
        assert isinstance(decisions[0], Allowed)
        assert decisions[0].books_left == 2
        assert isinstance(decisions[1], Wait)
        assert decisions[1].books_left == 3  # of this process's own

    run_virtually(main())


def test_a_grant_is_good_for_a_quarter_of_a_second_from_when_it_was_asked_for() -> None:
    async def main() -> None:
        house = House()
        [decision] = await house.ask()
        assert isinstance(decision, Allowed)
        now = house.clock.monotonic()
        assert decision.grant.still_good(now + 0.24)
        assert not decision.grant.still_good(now + 0.25)

    run_virtually(main())


def test_a_call_is_reported_once() -> None:
    async def main() -> None:
        house = House()
        [decision] = await house.ask()
        assert isinstance(decision, Allowed)
        house.admission.report(decision.grant, Outcome.NOT_SENT)
        with pytest.raises(RuntimeError, match="seller was reported before"):
            house.admission.report(decision.grant, Outcome.NOT_SENT)

    run_virtually(main())


def test_a_call_that_may_take_too_long_is_an_error() -> None:
    async def main() -> None:
        house = House()
        with pytest.raises(ValueError, match=r"may take 5\.0 s: admission allows at most 4\.75 s"):
            await house.admission.admit([Ask(SELLER, timeout_s=5.0)], Purpose.QUOTE)

    run_virtually(main())


def test_reports_travel_together_in_the_background() -> None:
    async def main() -> None:
        house = House()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(house.admission.run())
            for one in allowed(await house.ask(count=5)):
                house.admission.report(one.grant, Outcome.SUCCESS)
            assert house.fleet.reports == []
            asked = house.fleet.asked
            await asyncio.sleep(0.3)
            assert len(house.fleet.reports) == 5
            assert house.fleet.asked == asked + 1
            running.cancel()

    run_virtually(main())


@pytest.mark.parametrize(("last", "sent"), [(Outcome.SUCCESS, 0), (Outcome.FAILURE, 5)])
def test_a_failure_is_told_of_sooner_than_that_all_is_well(last: Outcome, sent: int) -> None:
    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.admission.run())
        grants = [one.grant for one in allowed(await house.ask(count=5))]
        for grant in grants[1:]:
            house.admission.report(grant, Outcome.SUCCESS)
        house.admission.report(grants[0], last)
        await asyncio.sleep(1.5 * SETTINGS.flush_every_s)
        assert len(house.fleet.reports) == sent
        await asyncio.sleep(SETTINGS.flush_every_s)
        assert len(house.fleet.reports) == 5
        running.cancel()

    run_virtually(main())


def test_what_was_reported_last_is_sent_when_it_ends() -> None:
    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.admission.run())
        await asyncio.sleep(1)
        [one] = allowed(await house.ask())
        house.admission.report(one.grant, Outcome.SUCCESS)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(house.fleet.reports) == 1

    run_virtually(main())


def test_the_breaker_of_the_process_serves_while_valkey_is_gone_and_remembers_what_was_before() -> (
    None
):
    async def main() -> None:
        house = House()
        for _ in range(9):
            await house.call(Outcome.FAILURE)
        house.fleet.answers = False
        [decision] = await house.ask()
        assert isinstance(decision, Allowed)
        house.admission.report(decision.grant, Outcome.FAILURE)
        [refused] = await house.ask()
        assert refused == Refused(Reason.CIRCUIT_OPEN, 30.0)
        [health] = await house.admission.health([SELLER])
        assert (health.breaker, health.from_fleet) == (BreakerState.OPEN, False)

    run_virtually(main())


def test_silence_is_not_blamed_on_a_seller_when_our_own_loop_was_blocked() -> None:
    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.admission.run())
        await asyncio.sleep(1)
        [blocked] = allowed(await house.ask())
        loop = asyncio.get_running_loop()
        loop._pass(0.5)  # type: ignore[attr-defined]  # the virtual loop's: time goes by, nothing runs
        house.admission.report(blocked.grant, Outcome.SILENCE)
        await asyncio.sleep(1)
        [healthy] = allowed(await house.ask())
        house.admission.report(healthy.grant, Outcome.SILENCE)
        await asyncio.sleep(1)
        [health] = await house.admission.health([SELLER])
        assert (health.judged, health.failed) == (1, 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtually(main())


def test_no_seller_is_blamed_when_nearly_none_can_be_reached() -> None:
    async def main() -> None:
        house = House()
        limits = [Limits(f"seller-{number}", 1000) for number in range(20)]

        async def call_all(outcome: Callable[[int], Outcome]) -> None:
            asks = [Ask(each, timeout_s=1.0) for each in limits]
            decisions = allowed(await house.admission.admit(asks, Purpose.QUOTE))
            for grant in (decision.grant for decision in decisions):
                house.admission.report(grant, outcome(int(grant.seller_id.removeprefix("seller-"))))
            await house.admission.flush()
            await asyncio.sleep(0.5)

        async def out() -> int:
            health = await house.admission.health(limits)
            return sum(seller.breaker is BreakerState.OPEN for seller in health)

        await call_all(lambda _: Outcome.SUCCESS)
        for _ in range(20):
            await call_all(lambda _: Outcome.UNREACHED)
        assert await out() == 0
        # Half of them do not come back: those are to blame.
        for _ in range(20):
            await call_all(lambda number: [Outcome.SUCCESS, Outcome.UNREACHED][number % 2])
        assert await out() == 10

    run_virtually(main())


def test_few_sellers_that_cannot_be_reached_are_blamed_each() -> None:
    async def main() -> None:
        house = House()
        for _ in range(10):
            await house.call(Outcome.UNREACHED)
        [health] = await house.admission.health([SELLER])
        assert health.breaker is BreakerState.OPEN

    run_virtually(main())


def test_health_tells_breaker_budget_and_calls_under_way() -> None:
    async def main() -> None:
        house = House()
        before = house.clock.now()
        for _ in range(10):
            await house.call(Outcome.FAILURE)
        await asyncio.sleep(1)
        await house.ask(Purpose.RESOLVE)
        [health, other] = await house.admission.health([SELLER, Limits("other", 10, 50)])
        assert health.breaker is BreakerState.OPEN
        assert health.open_since == before
        assert health.retry_after_s == 29.0
        assert health.calls_left == 85 - 11
        assert (health.in_flight, health.judged, health.failed) == (1, 10, 10)
        assert health.books_left is None
        assert (other.breaker, other.open_since, other.calls_left) == (BreakerState.CLOSED, None, 9)
        assert other.books_left == 40 + 3
        await asyncio.sleep(30)
        [health] = await house.admission.health([SELLER])
        assert health.breaker is BreakerState.HALF_OPEN

    run_virtually(main())


def test_health_tells_no_budget_that_nobody_grants() -> None:
    """Be it that Valkey has forgotten what was called, or that the seller wants to be left alone."""

    async def main() -> None:
        house = House()
        house.admission.hold_off("seller", 30.0)
        await house.admission.flush()
        [health, other] = await house.admission.health([SELLER, Limits("other", 100)])
        assert (health.calls_left, other.calls_left) == (0, 85)
        await asyncio.sleep(31)
        [health] = await house.admission.health([SELLER])
        assert health.calls_left == 85
        house.fleet.ledger = Ledger(rules_of(SETTINGS))
        [health] = await house.admission.health([SELLER])
        assert health.calls_left == 5
        await asyncio.sleep(66)
        [health] = await house.admission.health([SELLER])
        assert health.calls_left == 85

    run_virtually(main())


def test_the_alarm_is_raised_when_many_sellers_are_out_and_ends_when_they_are_back() -> None:
    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.admission.run())
        await asyncio.sleep(6)
        assert house.admission.share_out == 0.0
        for _ in range(10):
            await house.call(Outcome.FAILURE)
        await asyncio.sleep(5)
        assert house.admission.alarm
        assert house.admission.share_out == 1.0
        await asyncio.sleep(30)
        await house.call(Outcome.SUCCESS)
        await asyncio.sleep(5)
        assert house.admission.share_out == 0.0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtually(main())


def test_thousands_of_sellers_are_watched_in_turns() -> None:
    async def main() -> None:
        house = House()
        many = [Limits(f"other-{i}", 100) for i in range(4000)]
        house.admission = Admission(
            house.fleet, house.clock, SETTINGS, sellers=lambda: [*many, SELLER], quiet=True
        )
        running = asyncio.create_task(house.admission.run())
        for _ in range(10):
            await house.call(Outcome.FAILURE)
        await asyncio.sleep(11)
        assert house.admission.share_out == 0.0
        await asyncio.sleep(5)
        assert house.admission.share_out == 1 / 4001
        await asyncio.sleep(5)
        assert house.admission.share_out == 1 / 4001
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtually(main())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"processes": 3, "process_index": 3}, "must be 0 to 2"),
        ({"warm_up_s": 60.0}, "warm_up_s is 60"),
    ],
)
def test_settings_that_cannot_be_kept_to_are_refused(
    settings: dict[str, float], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        AdmissionSettings(**settings)  # type: ignore[arg-type]  # the fields are of several kinds


def test_a_slot_that_is_free_again_is_known_to_whoever_asks_for_it() -> None:
    async def main() -> None:
        house = House(AdmissionSettings(processes=4, calls_at_once=2))
        first, _ = allowed(await house.ask(Purpose.PURCHASE, 2))
        [busy] = await house.ask(Purpose.PURCHASE, wait_s=1.0)
        assert isinstance(busy, Wait)
        assert busy.reason is Reason.CONCURRENCY
        house.admission.report(first.grant, Outcome.SUCCESS)
        assert allowed(await house.ask(Purpose.PURCHASE))

    run_virtually(main())


def test_quotes_leave_some_of_the_calls_at_once_to_purchases() -> None:
    async def main() -> None:
        house = House(AdmissionSettings(calls_at_once=16))
        assert len(allowed(await house.ask(Purpose.QUOTE, 20))) == 13
        assert len(allowed(await house.ask(Purpose.PURCHASE, 20))) == 3

    run_virtually(main())


def test_the_breaker_of_the_process_closes_when_calls_by_the_fleet_succeed_again() -> None:
    async def main() -> None:
        house = House()
        for _ in range(10):
            await house.call(Outcome.FAILURE)
        await house.clock.sleep(31)
        await house.call(Outcome.SUCCESS)
        house.fleet.answers = False
        [health] = await house.admission.health([SELLER])
        assert (health.from_fleet, health.breaker) == (False, BreakerState.CLOSED)
        assert allowed(await house.ask())

    run_virtually(main())


def test_a_success_right_after_it_has_opened_does_not_close_the_breaker_of_the_process() -> None:
    async def main() -> None:
        house = House()
        [late] = allowed(await house.ask())
        for _ in range(10):
            await house.call(Outcome.FAILURE)
        house.admission.report(late.grant, Outcome.SUCCESS)
        house.fleet.answers = False
        [health] = await house.admission.health([SELLER])
        assert health.breaker is BreakerState.OPEN

    run_virtually(main())


def test_a_seller_that_asks_for_it_is_left_alone_save_for_what_resolves_purchases() -> None:
    async def main() -> None:
        house = House()
        house.admission.hold_off("seller", 30.0)
        house.admission.hold_off("seller", 5.0)
        for purpose in (Purpose.QUOTE, Purpose.BROWSE, Purpose.PURCHASE):
            assert await house.ask(purpose) == [Refused(Reason.NO_BUDGET, 30.0)]
        assert allowed(await house.ask(Purpose.RESOLVE))
        other = Ask(Limits("other", 100), timeout_s=1.0)
        asks = [Ask(SELLER, timeout_s=1.0, wait_s=60.0), other]
        wait, passes = await house.admission.admit(asks, Purpose.QUOTE)
        assert isinstance(wait, Wait)
        assert (wait.after_s, wait.reason) == (30.0, Reason.NO_BUDGET)
        assert isinstance(passes, Allowed)
        await house.clock.sleep(30)
        assert allowed(await house.ask())

    run_virtually(main())


def test_what_a_seller_asks_of_one_process_all_of_them_do() -> None:
    async def main() -> None:
        house, other = House(), House()
        other.admission = Admission(house.fleet, other.clock, SETTINGS, sellers=lambda: [SELLER])
        house.admission.hold_off("seller", 30.0)
        await house.admission.flush()
        assert await other.ask(Purpose.PURCHASE) == [Refused(Reason.NO_BUDGET, 30.0)]
        assert await other.ask() == [Refused(Reason.NO_BUDGET, 30.0)]
        await other.clock.sleep(30)
        assert allowed(await other.ask(Purpose.PURCHASE))

    run_virtually(main())


def test_without_valkey_the_process_that_was_asked_leaves_the_seller_alone() -> None:
    async def main() -> None:
        house = House()
        house.fleet.answers = False
        assert allowed(await house.ask())
        house.admission.hold_off("seller", 30.0)
        [decision] = await house.ask(Purpose.PURCHASE, wait_s=60.0)
        assert isinstance(decision, Wait)
        await house.clock.sleep(30)
        assert allowed(await house.ask())

    run_virtually(main())


def test_refusals_and_open_breakers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = Measures()
    monkeypatch.setattr(admission_module, "_refusals", measures.meter.create_counter("refusals"))
    monkeypatch.setattr(admission_module, "_breakers_open", measures.meter.create_gauge("open"))

    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.admission.run())
        for _ in range(10):
            await house.call(Outcome.FAILURE)
        await house.ask(count=3)
        house.admission.hold_off("other", 5.0)
        await house.admission.admit([Ask(Limits("other", 100), timeout_s=1.0)], Purpose.QUOTE)
        await house.clock.sleep(6)
        running.cancel()
        await asyncio.wait([running])

    run_virtually(main())
    assert measures.seen() == {
        ("refusals", "circuit_open"): 3,
        ("refusals", "no_budget"): 1,
        ("open",): 1,
    }
