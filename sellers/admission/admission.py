"""Admission to sellers: every call to a seller asks here first and says afterwards how it went."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache, partial
from typing import TypeVar, assert_never

import structlog
from opentelemetry import metrics

from mesh.cancellation import end_if_cancelled
from mesh.clock import Clock
from sellers.admission.ledger import (
    NEVER_MS,
    Code,
    Ending,
    Ledger,
    Report,
    Request,
    Rules,
    Standing,
    Verdict,
)
from sellers.admission.model import (
    NO_LIMIT,
    AdmissionSettings,
    Allowed,
    Ask,
    BreakerState,
    Decision,
    Grant,
    Limits,
    Outcome,
    Purpose,
    Reason,
    Refused,
    SellerHealth,
    Wait,
)
from sellers.admission.outage import Outage
from sellers.admission.shares import Shares, browse_part, kept_part, split
from sellers.admission.valkey import FleetLedger, FleetUnavailable

_MOST_AT_ONCE = 500
"""Sellers in one script: Valkey serves nobody else for the few milliseconds that it takes."""

_WATCHED_AT_ONCE = 2000
"""Sellers whose breakers are looked at in one turn; of 10,000 each has its turn in 25 s."""

_LONGEST_NAP_S = 1.0
"""Who waits for a slot looks at least so often: others may have given theirs back."""

_REASONS = {
    Code.NO_BUDGET: Reason.NO_BUDGET,
    Code.CONCURRENCY: Reason.CONCURRENCY,
    Code.CIRCUIT_OPEN: Reason.CIRCUIT_OPEN,
    Code.WARMING_UP: Reason.WARMING_UP,
    # It says so itself.
    Code.LEFT_ALONE: Reason.NO_BUDGET,
}

_FOR_PURCHASES = {Purpose.PURCHASE, Purpose.RESOLVE}
"""What the reserve is for."""

_ItemT = TypeVar("_ItemT")

_log = structlog.get_logger(__name__)
_meter = metrics.get_meter(__name__)
_refusals = _meter.create_counter(
    "bookmesh.admission.refusals",
    unit="{call}",
    description="Calls to sellers that were not allowed, by why",
)
_breakers_open = _meter.create_gauge(
    "bookmesh.admission.breakers_open",
    unit="{seller}",
    description="Sellers whose breaker is open, as this process sees it",
)


def rules_of(settings: AdmissionSettings) -> Rules:
    """Give the rules by which ledgers go."""
    return Rules(
        window_ms=round(settings.window_s * 1000),
        warm_up_ms=round(settings.warm_up_s * 1000),
        breaker_calls=settings.breaker_calls,
        breaker_failure_percent=settings.breaker_failure_percent,
        breaker_open_ms=round(settings.breaker_open_s * 1000),
    )


class Admission:
    """Decides which calls to sellers this process may make.

    First the fleet's ledger in Valkey is asked, for all sellers in one round trip; what its budget does not allow may
    still come out of this process's own share, which nobody else can use up. While Valkey does not answer, only that
    share is left, and a breaker of this process alone; ``run`` finds out when it is back, so that no call waits for it.

    ``run`` must be running: it sends the reports.
    """

    def __init__(
        self,
        fleet: FleetLedger,
        clock: Clock,
        settings: AdmissionSettings,
        *,
        sellers: Callable[[], Sequence[Limits]],
        quiet: bool = False,
    ) -> None:
        """Start with an empty memory.

        Args:
            fleet: the ledger that all processes share.
            clock: tells the time.
            settings: the rules.
            sellers: those of which the alarm takes the share that is out.
            quiet: whether it is certain that no process with this index has called a seller for the warm-up. If not,
                this process does not use its own share until it is over.

        """
        self._fleet = fleet
        self._clock = clock
        self._settings = settings
        self._sellers = sellers
        self._split = lru_cache(maxsize=4096)(partial(split, settings=settings))
        self._own = Ledger(rules_of(settings))
        if quiet:
            self._own.declare_quiet(self._now_ms())
        else:
            self._own.admit(self._now_ms(), ())
        self._longest_call_s = settings.longest_call_s
        self._quotes_at_once = settings.calls_at_once - (
            settings.calls_at_once * settings.reserve_percent // 100
        )
        self._browse_at_once = browse_part(self._quotes_at_once, settings)
        # Sellers about which reports go ahead of the next question.
        self._ahead: set[str] = set()
        self._own_at_once = max(1, settings.calls_at_once // settings.processes)
        self._fleet_answers = True
        self._lost = asyncio.Event()
        self._hope_until = -math.inf
        self._ended: list[tuple[Grant, Outcome, float]] = []
        self._reports: list[Report] = []
        self._reported = asyncio.Event()
        self._last_beat = math.inf
        self._blocked_at = -math.inf
        self._outage = Outage(
            window_s=settings.outage_window_s,
            sellers=settings.outage_sellers,
            percent=settings.outage_percent,
        )
        self._share_out = 0.0
        self._alarm = False

    @property
    def fleet_answers(self) -> bool:
        """Say whether Valkey answers, as far as is known."""
        return self._fleet_answers

    @property
    def share_out(self) -> float:
        """Give the share of sellers whose breaker was open when last looked at, 0 to 1."""
        return self._share_out

    @property
    def alarm(self) -> bool:
        """Say whether that is too many."""
        return self._alarm

    async def admit(self, asks: Sequence[Ask], purpose: Purpose) -> list[Decision]:
        """Decide on calls, in their order. One round trip; never longer than ``valkey_timeout_s`` and a little.

        Raises:
            ValueError: if a call may take longer than ``longest_call_s``.

        """
        self._note_ended()
        asked_at = self._clock.monotonic()
        requests = [self._request(ask, purpose) for ask in asks]
        verdicts: list[Verdict] | None = None
        if self._fleet_answers:
            try:
                if not self._ahead.isdisjoint(request.seller_id for request in requests):
                    await self._send_reports()
                verdicts = await self._ask_fleet(requests)
            except FleetUnavailable as error:
                self._lose_fleet(error)
        if verdicts is None:
            return [self._own_decision(ask, purpose) for ask in asks]
        good_until = asked_at + self._settings.send_within_s
        decisions: list[Decision] = []
        for ask, request, verdict in zip(asks, requests, verdicts, strict=True):
            books_left = _books_left(request.books_cap, verdict.books_used)
            if verdict.code == Code.CONCURRENCY:
                # What ends until it asks again may be the slot that is waited for.
                self._ahead.add(request.seller_id)
            else:
                self._ahead.discard(request.seller_id)
            if verdict.code == Code.ALLOWED:
                grant = Grant(
                    seller_id=request.seller_id,
                    books=request.books,
                    from_fleet=True,
                    ends_second=verdict.ends_second,
                    probe=verdict.probe,
                    granted_at=asked_at,
                    good_until=good_until,
                )
                decisions.append(
                    Allowed(
                        grant,
                        request.calls_cap - verdict.calls_used,
                        verdict.calls_used,
                        books_left,
                    )
                )
            elif verdict.code in {Code.NO_BUDGET, Code.WARMING_UP}:
                decisions.append(self._own_decision(ask, purpose, verdict, books_left))
            else:
                decisions.append(self._denied(ask, purpose, verdict, books_left))
        return decisions

    def hold_off(self, seller_id: str, for_s: float | None) -> None:
        """Leave a seller alone that was called too often, save for what resolves purchases; all processes do.

        For so long as it asks, or for a moment where it does not say (None).
        """
        self._note_ended()
        if for_s is None:
            for_s = self._settings.unsaid_s
        report = Report(seller_id, 0, 0, 0, Ending.LEAVE_ALONE, round(for_s * 1000))
        self._own.report(self._now_ms(), [report])
        if self._fleet_answers:
            # Before anything more is asked of this seller.
            self._ahead.add(seller_id)
            self._reports.append(report)
            self._reported.set()

    async def acquire(self, ask: Ask, purpose: Purpose, *, until: float) -> Allowed | Refused:
        """Wait for one slot, at most until then (monotonic); ``ask.wait_s`` is of no account."""
        while True:
            left_s = until - self._clock.monotonic()
            [decision] = await self.admit([replace(ask, wait_s=max(left_s, 0.0))], purpose)
            match decision:
                case Allowed() | Refused():
                    return decision
                case Wait(after_s=after_s, reason=reason):
                    left_s = until - self._clock.monotonic()
                    if left_s <= 0:
                        return Refused(reason, after_s)
                    await self._clock.sleep(min(after_s, left_s, _LONGEST_NAP_S))
                case _:
                    assert_never(decision)

    def report(self, grant: Grant, outcome: Outcome) -> None:
        """Say how a granted call ended, as soon as it has. Returns at once; reports travel together.

        Raises:
            RuntimeError: if this grant has been reported before: its slot must not be freed twice.

        """
        if grant.reported:
            raise RuntimeError(f"the call to {grant.seller_id} was reported before: report it once")
        grant.reported = True
        if outcome is Outcome.SILENCE and self._was_blocked_since(grant.granted_at):
            outcome = Outcome.OURS
        if outcome is not Outcome.OURS:
            self._ended.append((grant, outcome, self._clock.monotonic()))
            self._reported.set()

    def _note_ended(self) -> None:
        """Take note of calls that have ended: many at a time, which takes half of the time. Before any decision."""
        ended, self._ended = self._ended, []
        for grant, outcome, at in ended:
            self._note(grant, outcome, at)

    def _note(self, grant: Grant, outcome: Outcome, at: float) -> None:
        """Take note of how a call ended, at a time (monotonic)."""
        at_ms = int(at * 1000)
        ending = _ENDINGS[outcome]
        if self._is_outage(grant, outcome, at) and outcome is Outcome.UNREACHED:
            ending = Ending.EXCUSED
        ends_second = 0 if outcome is Outcome.SILENCE else grant.ends_second
        at_grantor = Report(grant.seller_id, ends_second, grant.books, grant.probe, ending)
        at_other = Report(grant.seller_id, 0, 0, 0, ending)
        self._own.report(at_ms, (at_other if grant.from_fleet else at_grantor,))
        if grant.from_fleet and outcome is Outcome.SUCCESS:
            self._own.absolve(at_ms, grant.seller_id)
        if self._fleet_answers:
            self._reports.append(at_grantor if grant.from_fleet else at_other)

    def _is_outage(self, grant: Grant, outcome: Outcome, now: float) -> bool:
        """Say whether nearly no seller can be reached, now that this call has ended so."""
        before = self._outage.is_ours
        if outcome is Outcome.NOT_SENT or outcome is Outcome.SILENCE:
            return before
        self._outage.note(grant.seller_id, now, reached=outcome is not Outcome.UNREACHED)
        is_ours = self._outage.is_ours
        if is_ours and not before:
            _log.error("nearly no seller can be reached, and none is blamed: look at our network")
        elif before and not is_ours:
            _log.info("sellers can be reached again")
        return is_ours

    async def health(self, sellers: Sequence[Limits]) -> list[SellerHealth]:
        """Say how sellers are, in their order: the fleet's view, or this process's while Valkey does not answer."""
        self._note_ended()
        seller_ids = [limits.seller_id for limits in sellers]
        own = self._own.standings(self._now_ms(), seller_ids)
        standings: list[Standing] | None = None
        if self._fleet_answers:
            try:
                standings = []
                for part in _parts(seller_ids):
                    standings += await self._fleet.standings(part)
            except FleetUnavailable as error:
                self._lose_fleet(error)
                standings = None
        return [
            self._health_of(limits, None if standings is None else standings[i], own[i])
            for i, limits in enumerate(sellers)
        ]

    async def flush(self) -> None:
        """Send the reports that have gathered."""
        self._note_ended()
        try:
            await self._send_reports()
        except FleetUnavailable as error:
            # Not sent again, as they may have been counted: those calls end when their time is over.
            self._lose_fleet(error)

    async def run(self) -> None:
        """Send reports, look for Valkey while it does not answer, watch the sellers; until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_flushing())
                tasks.create_task(self._keep_rejoining())
                tasks.create_task(self._keep_watching())
                tasks.create_task(self._keep_beating())
        finally:
            if self._fleet_answers:
                await self.flush()

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _hold_ms(self, ask: Ask) -> int:
        if ask.timeout_s > self._longest_call_s:
            raise ValueError(
                f"a call to {ask.limits.seller_id} may take {ask.timeout_s} s: admission allows at most"
                f" {self._longest_call_s} s (warm_up_s - window_s - send_within_s)"
            )
        return math.ceil((self._settings.send_within_s + ask.timeout_s) * 1000) + 1

    def _shares(self, limits: Limits) -> tuple[Shares, Shares]:
        return (
            self._split(limits.calls_per_minute),
            self._split(limits.quotes_per_minute or NO_LIMIT),
        )

    def _request(self, ask: Ask, purpose: Purpose) -> Request:
        calls, books = self._shares(ask.limits)
        match purpose:
            case Purpose.BROWSE:
                caps = calls.browse, books.browse, self._browse_at_once
            case Purpose.QUOTE:
                caps = calls.quotes, books.quotes, self._quotes_at_once
            case Purpose.PURCHASE | Purpose.RESOLVE:
                caps = calls.fleet, books.fleet, self._settings.calls_at_once
            case _:
                assert_never(purpose)
        calls_cap, books_cap, at_once = caps
        for_purchase = purpose in _FOR_PURCHASES
        return Request(
            ask.limits.seller_id,
            calls_cap - self._kept(ask, calls_cap),
            ask.books,
            books_cap - self._kept(ask, books_cap),
            at_once,
            self._hold_ms(ask),
            purpose is Purpose.RESOLVE,
            0 if for_purchase else calls.reserve,
            for_purchase,
        )

    def _kept(self, ask: Ask, of: int) -> int:
        return kept_part(of, self._settings) if ask.for_much else 0

    async def _send_reports(self) -> None:
        reports, self._reports = self._reports, []
        for part in _parts(reports):
            await self._fleet.report(part)

    async def _ask_fleet(self, requests: Sequence[Request]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for part in _parts(requests):
            verdicts += await self._fleet.admit(part)
        return verdicts

    def _own_decision(
        self, ask: Ask, purpose: Purpose, fleets: Verdict | None = None, fleets_books_left: int = 0
    ) -> Decision:
        """Decide by this process's own share; ``fleets`` is what Valkey said if it answers, but has no budget."""
        self._note_ended()
        calls, books = self._shares(ask.limits)
        at_once = self._own_at_once
        if fleets is not None:
            fleets_at_once = self._request(ask, purpose).concurrency
            at_once = min(at_once, fleets_at_once - fleets.in_flight)
        now = self._clock.monotonic()
        browse = purpose is Purpose.BROWSE
        calls_cap = calls.own_browse if browse else calls.own
        books_cap = books.own_browse if browse else books.own
        request = Request(
            ask.limits.seller_id,
            calls_cap - self._kept(ask, calls_cap),
            ask.books,
            books_cap - self._kept(ask, books_cap),
            at_once,
            self._hold_ms(ask),
            # Where the fleet has no objection its breaker is closed, whatever this process thinks.
            fleets is not None or purpose is Purpose.RESOLVE,
        )
        [verdict] = self._own.admit(int(now * 1000), [request])
        books_left = _books_left(request.books_cap, verdict.books_used)
        if verdict.code == Code.ALLOWED:
            grant = Grant(
                seller_id=request.seller_id,
                books=request.books,
                from_fleet=False,
                ends_second=verdict.ends_second,
                probe=verdict.probe,
                granted_at=now,
                good_until=now + self._settings.send_within_s,
            )
            calls_left = request.calls_cap - verdict.calls_used
            return Allowed(grant, calls_left, verdict.calls_used, books_left)
        if fleets is not None and (
            verdict.code != Code.CONCURRENCY and fleets.after_ms <= verdict.after_ms
        ):
            verdict = fleets
        return self._denied(ask, purpose, verdict, max(books_left, fleets_books_left))

    def _denied(
        self, ask: Ask, purpose: Purpose, verdict: Verdict, books_left: int
    ) -> Wait | Refused:
        reason = _REASONS[Code(verdict.code)]
        after_s = verdict.after_ms / 1000 or self._settings.busy_poll_s
        if verdict.after_ms == NEVER_MS:
            after_s = math.inf
        short = reason in {Reason.NO_BUDGET, Reason.WARMING_UP}
        if short and self._clock.monotonic() < self._hope_until:
            after_s = min(after_s, self._settings.rejoin_every_s)
        if reason is Reason.CIRCUIT_OPEN:
            return _refused(reason, after_s)
        if after_s > ask.wait_s and purpose is not Purpose.RESOLVE:
            return _refused(reason, after_s)
        return Wait(after_s, reason, books_left)

    def _lose_fleet(self, error: FleetUnavailable) -> None:
        if not self._fleet_answers:
            return
        self._fleet_answers = False
        self._hope_until = self._clock.monotonic() + self._settings.hope_s
        self._reports.clear()
        self._lost.set()
        _log.warning(
            "Valkey does not answer: this process goes on with its own share of what sellers allow",
            error=str(error),
        )

    def _was_blocked_since(self, moment: float) -> bool:
        now = self._clock.monotonic()
        late_s = now - self._last_beat - self._settings.loop_beat_s
        return self._blocked_at >= moment or late_s > self._settings.blocked_s

    def _health_of(self, limits: Limits, fleets: Standing | None, own: Standing) -> SellerHealth:
        calls, books = self._shares(limits)
        standing = own if fleets is None else fleets
        calls_left = books_left = 0
        alone = own.alone_ms or (fleets is not None and fleets.alone_ms)
        if not own.quiet_ms and not alone:
            calls_left += max(calls.own - own.calls_used, 0)
            books_left += max(books.own - own.books_used, 0)
        if fleets is not None and not fleets.quiet_ms and not alone:
            calls_left += max(calls.fleet - fleets.calls_used, 0)
            books_left += max(books.fleet - fleets.books_used, 0)
        is_open = standing.open_for_ms >= 0
        if not is_open:
            breaker = BreakerState.CLOSED
        elif standing.retry_ms > 0:
            breaker = BreakerState.OPEN
        else:
            breaker = BreakerState.HALF_OPEN
        return SellerHealth(
            seller_id=limits.seller_id,
            breaker=breaker,
            open_since=self._clock.now() - timedelta(milliseconds=standing.open_for_ms)
            if is_open
            else None,
            retry_after_s=standing.retry_ms / 1000,
            calls_left=calls_left,
            books_left=books_left if limits.quotes_per_minute else None,
            in_flight=standing.in_flight + (own.in_flight if fleets is not None else 0),
            judged=standing.judged,
            failed=standing.failed,
            from_fleet=fleets is not None,
        )

    async def _keep_flushing(self) -> None:
        while True:
            end_if_cancelled()
            await self._reported.wait()
            await self._clock.sleep(self._settings.flush_every_s)
            if not self._reports and all(how is Outcome.SUCCESS for _, how, _ in self._ended):
                # Nobody waits for that, and a round trip costs more than the reports in it.
                await self._clock.sleep(self._settings.flush_every_s)
            self._reported.clear()
            await self.flush()

    async def _keep_rejoining(self) -> None:
        while True:
            end_if_cancelled()
            await self._lost.wait()
            await self._clock.sleep(self._settings.rejoin_every_s)
            try:
                await self._fleet.admit(())
            except FleetUnavailable:
                continue
            self._lost.clear()
            self._fleet_answers = True
            _log.info("Valkey answers again")

    async def _keep_watching(self) -> None:
        """Look at the sellers' breakers, thousands in turns: each look costs Valkey and us a few milliseconds."""
        out: set[str] = set()
        begin = 0
        while True:
            end_if_cancelled()
            await self._clock.sleep(self._settings.alarm_every_s)
            sellers = self._sellers()
            begin = begin if begin < len(sellers) else 0
            part = sellers[begin : begin + _WATCHED_AT_ONCE]
            begin += _WATCHED_AT_ONCE
            health = await self.health(part)
            out.difference_update(limits.seller_id for limits in part)
            out.update(
                seller.seller_id for seller in health if seller.breaker is not BreakerState.CLOSED
            )
            out.intersection_update(limits.seller_id for limits in sellers)
            self._judge(len(out), len(sellers))

    def _judge(self, out: int, sellers: int) -> None:
        _breakers_open.set(out)
        self._share_out = out / sellers if sellers else 0.0
        alarm = out > 0 and out * 100 >= self._settings.alarm_percent * sellers
        if alarm and not self._alarm:
            _log.error("many sellers are out", out=out, sellers=sellers)
        elif self._alarm and not alarm:
            _log.info("most sellers are back", out=out, sellers=sellers)
        self._alarm = alarm

    async def _keep_beating(self) -> None:
        settings = self._settings
        while True:
            self._last_beat = self._clock.monotonic()
            await self._clock.sleep(settings.loop_beat_s)
            now = self._clock.monotonic()
            if now - self._last_beat - settings.loop_beat_s > settings.blocked_s:
                self._blocked_at = now


_ENDINGS = {
    Outcome.SUCCESS: Ending.SUCCESS,
    Outcome.FAILURE: Ending.FAILURE,
    Outcome.SILENCE: Ending.FAILURE,
    Outcome.UNREACHED: Ending.FAILURE,
    Outcome.NOT_SENT: Ending.NOT_SENT,
}


def _refused(reason: Reason, after_s: float) -> Refused:
    _refusals.add(1, {"bookmesh.reason": reason.value})
    return Refused(reason, after_s)


def _books_left(cap: int, used: int) -> int:
    return NO_LIMIT if cap >= NO_LIMIT else max(cap - used, 0)


def _parts(items: Sequence[_ItemT]) -> list[Sequence[_ItemT]]:
    return [items[at : at + _MOST_AT_ONCE] for at in range(0, len(items), _MOST_AT_ONCE)]
