"""The rules of admission, in plain Python over plain memory.

A ``Ledger`` counts the calls to sellers and says which may be made. It serves each process's own share of the limits,
and it is the twin of the scripts in ``lua/``, which do the same in Valkey for the whole fleet: one suite of tests runs
both.

The rule: *in no window of 60 s do more calls arrive at a seller than its limit.* A call arrives some time between its
grant and its end, so its slot is free again 60 s after its **end**. Ends are counted by the second; the whole second
must have passed. A call whose end nobody reports ends when its time is over: ``hold_ms`` after the grant. In flight is
what has not ended, so nothing leaks when a process dies.

Of a limit a reserve may be set apart for some calls. Those that have been made out of it are not kept free a second
time: the cap of the others does not count them, up to the size of the reserve.

Time is in whole milliseconds. A ledger whose time is set back stands still until it is reached again; set back by more
than the warm-up it begins anew, as one without memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

SECOND_MS = 1000

RESERVED_MS = 5000
"""Calls out of a reserve are counted by spans of this length, and count until the first of the span may be free."""

NEVER_MS = 2**32 - 1
"""The wait for what can never be granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a ledger goes by; see ``AdmissionSettings``."""

    window_ms: int
    warm_up_ms: int
    breaker_calls: int
    breaker_failure_percent: int
    breaker_open_ms: int


class Request(NamedTuple):
    """May this call be made?

    Attributes:
        seller_id: the seller.
        calls_cap: it may, if with it no more calls than this are under way or ended in the window.
        reserve: of those that were granted out of a reserve lately so many do not count against it.
        books: its books.
        books_cap: likewise for books.
        concurrency: most calls under way, with it.
        hold_ms: how long after the grant it is over for certain.
        past_breaker: whether it goes past an open breaker, and to a seller that wants to be left alone.
        reserved: whether it is one of those for which there is a reserve.

    """

    seller_id: str
    calls_cap: int
    books: int
    books_cap: int
    concurrency: int
    hold_ms: int
    past_breaker: bool
    reserve: int = 0
    reserved: bool = False


class Code(IntEnum):
    """The answer to a request."""

    ALLOWED = 0
    NO_BUDGET = 1
    CONCURRENCY = 2
    CIRCUIT_OPEN = 3
    WARMING_UP = 4
    LEFT_ALONE = 5


class Verdict(NamedTuple):
    """The answer to a request, and the numbers behind it.

    Attributes:
        code: one of ``Code``.
        after_ms: if not allowed: nothing changes before so many milliseconds (0: nobody knows when).
        calls_used: calls under way or ended in the window that count against its cap, this one among them if allowed.
        books_used: likewise of books.
        in_flight: likewise of calls under way.
        ends_second: if allowed: when it ends unless it is reported before, in seconds of the ledger's time.
        probe: its number if it is the probe of an open breaker; else 0.

    """

    code: int
    after_ms: int
    calls_used: int
    books_used: int
    in_flight: int
    ends_second: int
    probe: int


class Ending(IntEnum):
    """What is reported of a call."""

    SUCCESS = 1
    FAILURE = 2
    NOT_SENT = 3
    """Never made: its slot is free at once."""
    LEAVE_ALONE = 4
    """Nothing of a call: the seller wants to be left alone for a while."""
    EXCUSED = 5
    """It has ended, and says nothing of the seller."""


_NO_JUDGEMENT = (Ending.NOT_SENT, Ending.EXCUSED)


class Report(NamedTuple):
    """A call, some time after its grant.

    Attributes:
        seller_id: the seller.
        ends_second: as granted, if the call has ended now; 0 if it was granted elsewhere, or ends with its time.
        books: as granted.
        probe: as granted.
        ending: one of ``Ending``.
        alone_ms: for LEAVE_ALONE: for how long from now.

    """

    seller_id: str
    ends_second: int
    books: int
    probe: int
    ending: int
    alone_ms: int = 0


class Standing(NamedTuple):
    """What a ledger knows of a seller.

    Attributes:
        open_for_ms: how long its breaker has been open; -1 when it is closed.
        retry_ms: how long until it may be probed.
        calls_used: calls under way or ended in the window.
        books_used: likewise of books.
        in_flight: calls under way.
        judged: calls that ended in success or failure in the window.
        failed: those that failed.
        quiet_ms: how long nothing is granted, as the ledger does not know the past.
        alone_ms: how long the seller wants to be left alone.

    """

    open_for_ms: int
    retry_ms: int
    calls_used: int
    books_used: int
    in_flight: int
    judged: int
    failed: int
    quiet_ms: int = 0
    alone_ms: int = 0


_NOTHING_KNOWN = Standing(-1, 0, 0, 0, 0, 0, 0)


@dataclass(slots=True)
class _Pending:
    """Calls that have not ended, by the second in which they end if nobody reports them."""

    second: int
    calls: int = 0
    books: int = 0


@dataclass(slots=True)
class _Ended:
    """Calls that ended in one second, and what came out of them."""

    second: int
    calls: int = 0
    books: int = 0
    judged: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Reserved:
    """Calls that were granted out of a reserve in one span of ``RESERVED_MS``."""

    span: int
    calls: int = 0


@dataclass(slots=True)
class _Breaker:
    """Open while ``opened_ms`` is not None; ``probe`` is the number of the last probe."""

    opened_ms: int | None = None
    retry_ms: int = 0
    probe_until_ms: int = 0
    probe: int = 0


@dataclass(slots=True)
class _Account:
    """All about one seller. ``pending`` and ``ended`` are in the order of their seconds; the rest are their sums."""

    pending: list[_Pending] = field(default_factory=list)
    ended: deque[_Ended] = field(default_factory=deque)
    reserved: deque[_Reserved] = field(default_factory=deque)
    breaker: _Breaker = field(default_factory=_Breaker)
    alone_until_ms: int = 0
    in_flight: int = 0
    calls_used: int = 0
    books_used: int = 0
    judged: int = 0
    failed: int = 0

    def is_blank(self, now_ms: int) -> bool:
        """Say whether this says no more than an account that was never opened."""
        is_closed = self.breaker.opened_ms is None
        return not self.pending and not self.ended and is_closed and self.alone_until_ms <= now_ms

    def grant(self, second: int, books: int) -> None:
        """Count a call that ends in this second if nobody reports it."""
        at = len(self.pending)
        while at > 0 and self.pending[at - 1].second > second:
            at -= 1
        if at == 0 or self.pending[at - 1].second != second:
            self.pending.insert(at, _Pending(second))
            at += 1
        part = self.pending[at - 1]
        part.calls += 1
        part.books += books
        self.in_flight += 1
        self.calls_used += 1
        self.books_used += books

    def end(self, granted_second: int, books: int, *, second: int | None) -> None:
        """Let a call end in ``second``, or never have been (None), unless its time is over already."""
        for part in self.pending:
            if part.second == granted_second and part.calls > 0:
                break
        else:
            return
        part.calls -= 1
        part.books -= books
        self.in_flight -= 1
        if second is None:
            self.calls_used -= 1
            self.books_used -= books
        else:
            last = self._last(second)
            last.calls += 1
            last.books += books

    def reserve(self, now_ms: int) -> None:
        """Count a call as one out of a reserve."""
        span = now_ms // RESERVED_MS
        if not self.reserved or self.reserved[-1].span != span:
            self.reserved.append(_Reserved(span))
        self.reserved[-1].calls += 1

    def outside(self, reserve: int, now_ms: int, window_ms: int) -> int:
        """Say how many of the calls that are used were made out of a reserve of this size."""
        while self.reserved and self.reserved[0].span * RESERVED_MS + window_ms <= now_ms:
            self.reserved.popleft()
        return min(sum(part.calls for part in self.reserved), reserve, self.calls_used)

    def judge(self, second: int, *, failed: bool) -> None:
        """Count a success or a failure."""
        last = self._last(second)
        last.judged += 1
        last.failed += failed
        self.judged += 1
        self.failed += failed

    def forgive(self) -> None:
        """Forget successes and failures."""
        self.judged = self.failed = 0
        for part in self.ended:
            part.judged = part.failed = 0

    def advance(self, now_ms: int, window_ms: int) -> None:
        """End the calls whose time is over, and forget those that have left the window."""
        second = now_ms // SECOND_MS
        while self.pending and self.pending[0].second < second:
            over = self.pending.pop(0)
            if over.calls:
                last = self._last(over.second)
                last.calls += over.calls
                last.books += over.books
                self.in_flight -= over.calls
        while self.ended and free_ms(self.ended[0].second, window_ms) <= now_ms:
            old = self.ended.popleft()
            self.calls_used -= old.calls
            self.books_used -= old.books
            self.judged -= old.judged
            self.failed -= old.failed

    def _last(self, second: int) -> _Ended:
        if not self.ended or self.ended[-1].second != second:
            self.ended.append(_Ended(second))
        return self.ended[-1]


def free_ms(second: int, window_ms: int) -> int:
    """Say when the slots of calls that ended in a second are free again."""
    return (second + 1) * SECOND_MS + window_ms


class Ledger:
    """Counts calls and decides. See the module for the rule.

    One that is new knows nothing of the time before, and grants nothing until ``warm_up_ms`` have passed.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._accounts: dict[str, _Account] = {}
        self._born_ms: int | None = None
        self._now_ms = 0

    def declare_quiet(self, now_ms: int) -> None:
        """Take the caller's word that no seller has been called for the warm-up: grant from now on."""
        self._begin(now_ms, born_ms=now_ms - self._rules.warm_up_ms - 1)

    def admit(self, now_ms: int, requests: Iterable[Request]) -> list[Verdict]:
        """Answer each request; those before it in the same call count."""
        now_ms, quiet_ms = self._advance(now_ms)
        return [self._decide(request, now_ms, quiet_ms) for request in requests]

    def report(self, now_ms: int, reports: Iterable[Report]) -> None:
        """Take note of calls that have ended. Each call may be reported once."""
        now_ms, _ = self._advance(now_ms)
        for report in reports:
            self._note(report, now_ms)

    def absolve(self, now_ms: int, seller_id: str) -> None:
        """Close a breaker that may be probed: a call that was granted elsewhere has shown that the seller works."""
        account = self._accounts.get(seller_id)
        if account is None:
            return
        breaker = account.breaker
        if breaker.opened_ms is not None and breaker.retry_ms <= now_ms:
            breaker.opened_ms = None
            account.forgive()

    def standings(self, now_ms: int, seller_ids: Sequence[str]) -> list[Standing]:
        """Say what is known of sellers. Of one that is not called nothing is kept, and what was kept is forgotten."""
        now_ms, quiet_ms = self._advance(now_ms)
        return [self._standing(seller_id, now_ms, quiet_ms) for seller_id in seller_ids]

    def _advance(self, now_ms: int) -> tuple[int, int]:
        """Give the time, which never goes back, and how long nothing is to be granted yet."""
        if self._born_ms is None or self._now_ms - now_ms > self._rules.warm_up_ms:
            self._begin(now_ms, born_ms=now_ms)
        self._now_ms = max(self._now_ms, now_ms)
        assert self._born_ms is not None  # noqa: S101  for the type checker: _begin has set it
        quiet_ms = self._born_ms + self._rules.warm_up_ms + 1 - self._now_ms
        return self._now_ms, max(quiet_ms, 0)

    def _begin(self, now_ms: int, born_ms: int) -> None:
        self._accounts.clear()
        self._born_ms = born_ms
        self._now_ms = now_ms

    def _account(self, seller_id: str, now_ms: int) -> _Account:
        account = self._accounts.get(seller_id)
        if account is None:
            account = self._accounts[seller_id] = _Account()
        account.advance(now_ms, self._rules.window_ms)
        return account

    def _decide(self, request: Request, now_ms: int, quiet_ms: int) -> Verdict:
        account = self._account(request.seller_id, now_ms)
        breaker = account.breaker
        calls, books, in_flight = account.calls_used, account.books_used, account.in_flight
        calls -= account.outside(request.reserve, now_ms, self._rules.window_ms)

        def no(code: Code, after_ms: int) -> Verdict:
            return Verdict(code, after_ms, calls, books, in_flight, 0, 0)

        probe_ms = max(breaker.retry_ms, breaker.probe_until_ms) - now_ms
        is_open = breaker.opened_ms is not None
        barred = Code.LEFT_ALONE, account.alone_until_ms - now_ms
        if is_open and probe_ms > 0:
            barred = Code.CIRCUIT_OPEN, probe_ms
        if barred[1] > 0 and not request.past_breaker:
            return no(*barred)
        if quiet_ms > 0:
            return no(Code.WARMING_UP, quiet_ms)
        if calls + 1 > request.calls_cap:
            counts = [(part, part.calls) for part in account.ended]
            return no(
                Code.NO_BUDGET, self._free_in(counts, calls, calls + 1 - request.calls_cap, now_ms)
            )
        if books + request.books > request.books_cap:
            counts = [(part, part.books) for part in account.ended]
            return no(
                Code.NO_BUDGET,
                self._free_in(counts, books, books + request.books - request.books_cap, now_ms),
            )
        if in_flight + 1 > request.concurrency:
            return no(Code.CONCURRENCY, 0)

        ends_second = (now_ms + request.hold_ms) // SECOND_MS
        account.grant(ends_second, request.books)
        if request.reserved:
            account.reserve(now_ms)
        probe = 0
        if is_open and probe_ms <= 0:
            breaker.probe += 1
            breaker.probe_until_ms = now_ms + request.hold_ms
            probe = breaker.probe
        return Verdict(
            Code.ALLOWED, 0, calls + 1, books + request.books, in_flight + 1, ends_second, probe
        )

    def _free_in(self, counts: list[tuple[_Ended, int]], used: int, need: int, now_ms: int) -> int:
        """Say in how many milliseconds at least ``need`` of what is used is free again, at the earliest."""
        if need > used:
            return NEVER_MS
        for part, count in counts:
            need -= count
            if need <= 0:
                return free_ms(part.second, self._rules.window_ms) - now_ms
        # The rest has not even ended.
        return self._rules.window_ms

    def _note(self, report: Report, now_ms: int) -> None:
        account = self._account(report.seller_id, now_ms)
        if report.ending == Ending.LEAVE_ALONE:
            account.alone_until_ms = max(account.alone_until_ms, now_ms + report.alone_ms)
            return
        second = now_ms // SECOND_MS
        if report.ends_second:
            ended = None if report.ending == Ending.NOT_SENT else second
            account.end(report.ends_second, report.books, second=ended)
        if report.ending not in _NO_JUDGEMENT:
            account.judge(second, failed=report.ending == Ending.FAILURE)
        self._turn(account, report, now_ms)

    def _turn(self, account: _Account, report: Report, now_ms: int) -> None:
        """Open or close the breaker as a report demands."""
        breaker, rules = account.breaker, self._rules
        if breaker.opened_ms is None:
            if (
                account.judged >= rules.breaker_calls
                and account.failed * 100 >= rules.breaker_failure_percent * account.judged
            ):
                breaker.opened_ms = now_ms
                breaker.retry_ms = now_ms + rules.breaker_open_ms
                breaker.probe_until_ms = 0
        elif report.probe and report.probe == breaker.probe:
            breaker.probe_until_ms = 0
            if report.ending == Ending.FAILURE:
                breaker.retry_ms = now_ms + rules.breaker_open_ms
            elif report.ending == Ending.SUCCESS:
                breaker.opened_ms = None
                account.forgive()

    def _standing(self, seller_id: str, now_ms: int, quiet_ms: int) -> Standing:
        if seller_id not in self._accounts:
            return _NOTHING_KNOWN._replace(quiet_ms=quiet_ms)
        account = self._account(seller_id, now_ms)
        if account.is_blank(now_ms):
            del self._accounts[seller_id]
            return _NOTHING_KNOWN._replace(quiet_ms=quiet_ms)
        breaker = account.breaker
        return Standing(
            -1 if breaker.opened_ms is None else now_ms - breaker.opened_ms,
            0 if breaker.opened_ms is None else max(breaker.retry_ms - now_ms, 0),
            account.calls_used,
            account.books_used,
            account.in_flight,
            account.judged,
            account.failed,
            quiet_ms,
            max(account.alone_until_ms - now_ms, 0),
        )
