"""No 60 s see more calls arrive at a seller than its limit, whatever breaks; and little of the limit is wasted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from random import Random

import pytest
import structlog

from bench.virtual_time import run_virtually
from sellers.admission import admission, ledger
from sellers.admission.ledger import Ledger, Report, Request, Verdict
from sellers.admission.model import AdmissionSettings, Grant, Outcome, Purpose
from sellers.admission.shares import Shares
from tests.fakes.selling_fleet import Plan, Seen, SellingFleet

SCHEDULES = 40
PER_TEST = 4


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def plan(seed: int) -> Plan:
    rng = Random(seed)
    return Plan(
        seed=seed,
        calls=rng.choice([3, 7, 12, 20]),
        books=rng.choice([0, 0, 25]),
        faults=rng.choice([0, 3, 8, 15]),
        failing=rng.choice([0.0, 0.1, 0.6]),
        latency_s=rng.choice([0.2, 1.5, 2.3]),
    )


def wrong(plan: Plan, seen: Seen) -> str:
    """Say what a run did that it must not; nothing if all is well."""
    calls, books = seen.most_in_a_minute()
    if calls > plan.calls or (plan.books and books > plan.books):
        return f"{calls} of {plan.calls} calls, {books} of {plan.books} books in a minute: {plan}"
    if seen.probes_at_once() > 1:
        return f"{seen.probes_at_once()} probes at once: {plan}"
    return ""


@pytest.mark.parametrize("first", range(0, SCHEDULES, PER_TEST))
def test_no_minute_sees_more_than_the_limit(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        each = plan(seed)
        seen = run_virtually(SellingFleet(each).run())
        assert seen.arrivals
        assert not wrong(each, seen)


@pytest.mark.parametrize("latency_s", [0.1, 2.0])
def test_nearly_all_that_the_rule_permits_is_used(latency_s: float) -> None:
    """A slot is used again 60 s after its call ended: so much a minute can be had at the very most."""
    each = Plan(
        seed=1, calls=30, faults=0, failing=0.0, slow=0.0, latency_s=latency_s, lasts_s=600.0, at_once=6,
        purposes=(Purpose.PURCHASE,),
    )  # fmt: skip
    seen = run_virtually(SellingFleet(each).run())
    mean_latency_s = latency_s / 2
    permitted = each.calls * (each.lasts_s / (60 + mean_latency_s))
    assert len(seen.arrivals) >= 0.9 * permitted
    assert not wrong(each, seen)


class EndsAtTheGrant(Ledger):
    """Frees a slot 60 s after the grant, as a window over grants would."""

    def admit(self, now_ms: int, requests: Iterable[Request]) -> list[Verdict]:
        return super().admit(now_ms, [request._replace(hold_ms=0) for request in requests])

    def report(self, now_ms: int, reports: Iterable[Report]) -> None:
        """The call has ended already."""


class EndsAtTheReportOnly(Ledger):
    """Takes a call as over for good when its end was not reported."""

    def _account(self, seller_id: str, now_ms: int) -> ledger._Account:
        account = self._accounts.get(seller_id)
        second = now_ms // ledger.SECOND_MS
        while account and account.pending and account.pending[0].second < second:
            lost = account.pending.pop(0)
            account.in_flight -= lost.calls
            account.calls_used -= lost.calls
            account.books_used -= lost.books
        return super()._account(seller_id, now_ms)


class ProbesWithoutLease(Ledger):
    """Forgets that a probe is under way."""

    def _decide(self, request: Request, now_ms: int, quiet_ms: int) -> Verdict:
        verdict = super()._decide(request, now_ms, quiet_ms)
        self._accounts[request.seller_id].breaker.probe_until_ms = 0
        return verdict


class CountsBackTwice(Ledger):
    """Gives the slot of a call back when it ends, besides counting its end."""

    def _note(self, report: Report, now_ms: int) -> None:
        super()._note(report, now_ms)
        account = self._account(report.seller_id, now_ms)
        if report.ends_second and account.calls_used:
            account.calls_used -= 1


class NoWarmUp(SellingFleet):
    def after_restart(self) -> None:
        self.valkey.ledger.declare_quiet(self.valkey.now_ms())


class NoWarmUpOfProcesses(SellingFleet):
    def past_is_known(self, *, first: bool) -> bool:
        return True


class SendsLate(SellingFleet):
    def still_good(self, grant: Grant, now: float) -> bool:
        return True


class CancelledIsOver(SellingFleet):
    def outcome(self, outcome: Outcome) -> Outcome:
        return Outcome.SUCCESS if outcome is Outcome.OURS else outcome


RULES = admission.rules_of(AdmissionSettings())
BUYING = (Purpose.QUOTE, Purpose.PURCHASE, Purpose.RESOLVE)


def whole_share_to_everyone(patch: pytest.MonkeyPatch) -> None:
    def split(limit: int, settings: AdmissionSettings) -> Shares:
        local = limit * settings.local_percent // 100
        return Shares(
            fleet=limit - local,
            quotes=limit - local,
            reserve=0,
            browse=limit - local,
            own=local,
            own_browse=local,
        )

    patch.setattr(admission, "split", split)


def leave(_patch: pytest.MonkeyPatch) -> None:
    """Nothing to replace."""


@pytest.mark.parametrize(
    ("ledger_kind", "fleet_kind", "plant"),
    [
        pytest.param(EndsAtTheGrant, SellingFleet, leave, id="slots free 60 s after the grant"),
        pytest.param(EndsAtTheReportOnly, SellingFleet, leave, id="unreported calls forgotten"),
        pytest.param(ProbesWithoutLease, SellingFleet, leave, id="two probes"),
        pytest.param(CountsBackTwice, SellingFleet, leave, id="slots given back twice"),
        pytest.param(Ledger, NoWarmUp, leave, id="no warm-up of Valkey"),
        pytest.param(Ledger, NoWarmUpOfProcesses, leave, id="no warm-up of a process"),
        pytest.param(Ledger, SellingFleet, whole_share_to_everyone, id="share counted thrice"),
        pytest.param(Ledger, SendsLate, leave, id="old grants are sent"),
        pytest.param(Ledger, CancelledIsOver, leave, id="a cancelled call is over at once"),
    ],
)
def test_a_planted_bug_is_caught(
    ledger_kind: type[Ledger],
    fleet_kind: type[SellingFleet],
    plant: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    for seed in range(SCHEDULES):
        # Without browsing, which seldom gets anything: the more calls, the sooner a bug shows.
        each = replace(plan(seed), calls=20, books=0, latency_s=2.3, failing=0.5, purposes=BUYING)
        if wrong(each, run_virtually(fleet_kind(each, lambda: ledger_kind(RULES)).run())):
            return
    pytest.fail(f"{SCHEDULES} schedules did not show it")
