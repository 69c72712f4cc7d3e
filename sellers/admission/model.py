"""What callers and admission say to each other. Pure: the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Self, TypeAlias

from sellers.model import Seller

NO_LIMIT = 2**31 - 1
"""Stands for a limit that a seller does not have; larger ones are taken for it."""


class Purpose(Enum):
    """What a call is for, which decides how much of a seller's limit it may use."""

    QUOTE = "quote"
    """Quotes to buy on, capabilities and whatever else can be done without: leaves the reserve to the others."""
    BROWSE = "browse"
    """Quotes for those who only compare prices: passes while the seller is hardly called at all, so that it takes a
    small part of what quotes may use at the most, and nothing where purchases are many."""
    PURCHASE = "purchase"
    """Hold, order, and the quote asked for again between them: may use the reserve."""
    RESOLVE = "resolve"
    """GetOrder, cancel, release, ListOrders: as a purchase, and neither refused for lack of budget nor stopped by the
    breaker."""


class Reason(StrEnum):
    """Why a call may not be made now."""

    NO_BUDGET = "no_budget"
    """The seller has been called as often as it allows."""
    CONCURRENCY = "concurrency"
    """As many calls as it may have at once are under way."""
    CIRCUIT_OPEN = "circuit_open"
    """It failed too often lately."""
    WARMING_UP = "warming_up"
    """What was called before a restart is not known, so everything is taken as used up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a seller may be called.

    Attributes:
        seller_id: which seller.
        calls_per_minute: calls in any 60 s, at least 1.
        quotes_per_minute: books asked about in any 60 s, at sellers to whom a batch is not one call; 0 for no limit.

    """

    seller_id: str
    calls_per_minute: int
    quotes_per_minute: int = 0

    @classmethod
    def of(cls, seller: Seller) -> Self:
        """Give the limits that a seller has declared."""
        can = seller.capabilities
        return cls(seller.seller_id, can.calls_per_minute, can.quotes_per_minute)


@dataclass(frozen=True, slots=True)
class Ask:
    """May this call be made?

    Attributes:
        limits: of the seller to call.
        timeout_s: how long the call may take once it is sent; at most ``AdmissionSettings.longest_call_s``.
        books: how many quotes it asks for: 1 for GetQuote, n for a batch, 0 for all others.
        wait_s: how long the caller could wait for a slot; a longer wait is a refusal, save for RESOLVE.
        for_much: whether it is a quote for customers who want much: it leaves alone what is kept for the others.

    """

    limits: Limits
    timeout_s: float
    books: int = 0
    wait_s: float = 0.0
    for_much: bool = False


@dataclass(slots=True, eq=False)
class Grant:
    """One slot at a seller: send the call while ``still_good``, then ``Admission.report`` it, once.

    Attributes:
        seller_id: whom to call.
        books: how many quotes it was asked for.
        from_fleet: whether it comes out of what the fleet shares; else out of this process's own share.
        ends_second: the second in which the call counts as ended if nobody reports it, by the clock of who granted it.
        probe: the number of the probe that the call is for an open breaker; 0 when it is none.
        granted_at: when it was asked for, monotonic.
        good_until: until when it may be sent, monotonic.
        reported: whether it has been.

    """

    seller_id: str
    books: int
    from_fleet: bool
    ends_second: int
    probe: int
    granted_at: float
    good_until: float
    reported: bool = False

    def still_good(self, now: float) -> bool:
        """Say whether the call may be sent now (monotonic); if not, report it as NOT_SENT and ask again."""
        return now < self.good_until


@dataclass(frozen=True, slots=True)
class Allowed:
    """Make the call.

    Attributes:
        grant: the slot.
        calls_left: how many more calls for this purpose the seller allows at the moment.
        calls_used: calls of the last minute that count against that, with this one; of this process, out of its share.
        books_left: likewise of books; ``NO_LIMIT`` where it has no such limit.

    """

    grant: Grant
    calls_left: int
    calls_used: int
    books_left: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after ``after_s`` seconds: earlier makes no sense, and others may be faster.

    Attributes:
        after_s: above 0.
        reason: what is lacking.
        books_left: how many books could be asked for at once, where only they are too many.

    """

    after_s: float
    reason: Reason
    books_left: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Do not make the call.

    Attributes:
        reason: why.
        after_s: in how many seconds it could be otherwise; infinite for more books than the limit allows at all.

    """

    reason: Reason
    after_s: float


Decision: TypeAlias = Allowed | Wait | Refused


class Outcome(Enum):
    """How a call that was granted ended."""

    SUCCESS = "success"
    """The seller answered, be it "no"."""
    FAILURE = "failure"
    """The seller answered wrongly, with an error, or cannot be reached."""
    SILENCE = "silence"
    """No answer in time: a failure; it may still reach the seller, so it ends when its time is over."""
    NOT_SENT = "not_sent"
    """It was not sent: gives the slot back."""
    UNREACHED = "unreached"
    """There was no connection: a failure of the seller, unless nearly all are out of reach."""
    OURS = "ours"
    """Cancelled, or our own fault: blames nobody. It may still reach the seller, so it ends when its time is over."""


class BreakerState(StrEnum):
    """Whether a seller is called."""

    CLOSED = "closed"
    """It is."""
    OPEN = "open"
    """It is not, for a time."""
    HALF_OPEN = "half_open"
    """One call may be made, or is under way, to see whether it works again."""


@dataclass(frozen=True, slots=True)
class SellerHealth:
    """What admission knows of a seller.

    Attributes:
        seller_id: whom.
        breaker: whether it is called.
        open_since: when the breaker opened; None when it is closed.
        retry_after_s: in how many seconds it may be tried again; 0 when it is closed or may be tried now.
        calls_left: how many calls it allows now, the reserve and this process's share among them.
        books_left: likewise of books; None where it has no such limit.
        in_flight: calls under way.
        judged: calls of the last 60 s that ended in success or failure.
        failed: those of them that failed.
        from_fleet: whether this is of the whole fleet; else of this process only, because Valkey does not answer.

    """

    seller_id: str
    breaker: BreakerState
    open_since: datetime | None
    retry_after_s: float
    calls_left: int
    books_left: int | None
    in_flight: int
    judged: int
    failed: int
    from_fleet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """The rules of admission. Processes of one mesh must agree on all but ``process_index``.

    Attributes:
        processes: how many processes of the mesh call sellers; what never belongs to Valkey is split over so many.
        process_index: which of them this is, from 0. No two that run, or ran within ``warm_up_s``, may share one.
        window_s: over how long limits count.
        warm_up_s: for how long nothing is granted by what has no memory of the time before.
        send_within_s: after how long a grant that was not used is void.
        local_percent: how much of each limit never belongs to Valkey.
        reserve_percent: how much of what Valkey grants is not for quotes.
        browse_percent: how much of what quotes may use may be used up after a call for browsing; likewise of the calls
            at once and of what never belongs to Valkey.
        kept_percent: how much of what quotes may use is kept for customers who want little; likewise of what never
            belongs to Valkey. Those who want much would use up a minute's calls in a moment.
        calls_at_once: most calls that one seller has under way; for quotes less the reserve, so that those who come for
            the slots as they free up do not keep purchases out.
        busy_poll_s: when to ask again if that many are.
        unsaid_s: for how long a seller is left alone that was called too often and does not say for how long.
        breaker_failure_percent: share of failures that opens a breaker.
        breaker_calls: the fewest calls in ``window_s`` that open one.
        breaker_open_s: from opening to the probe.
        alarm_percent: share of sellers with open breakers that raises the alarm.
        alarm_every_s: how often that is looked at.
        outage_percent: share of the sellers called lately that, if they cannot be reached, tells of an outage of our
            own, for which no seller is blamed.
        outage_sellers: the fewest sellers of which it does.
        outage_window_s: how long ago "lately" is.
        valkey_timeout_s: longest wait for Valkey; on a busy machine a good answer may take long, and taking Valkey for
            lost costs four fifths of every limit.
        hope_s: for how long after Valkey was lost its part of the limits is waited for.
        rejoin_every_s: how often Valkey is tried while it does not answer.
        flush_every_s: how long reports gather before they are sent; twice as long where all calls went well.
        blocked_s: an event loop that is late by more than this cannot blame a seller for silence.
        loop_beat_s: how often that is looked at.

    """

    processes: int = 1
    process_index: int = 0
    window_s: float = 60.0
    warm_up_s: float = 65.0
    send_within_s: float = 0.25
    local_percent: int = 20
    reserve_percent: int = 20
    browse_percent: int = 20
    kept_percent: int = 25
    calls_at_once: int = 16
    busy_poll_s: float = 0.1
    unsaid_s: float = 2.0
    breaker_failure_percent: int = 50
    breaker_calls: int = 10
    breaker_open_s: float = 30.0
    alarm_percent: int = 30
    alarm_every_s: float = 5.0
    outage_percent: int = 80
    outage_sellers: int = 5
    outage_window_s: float = 5.0
    valkey_timeout_s: float = 0.25
    rejoin_every_s: float = 0.5
    hope_s: float = 2.0
    flush_every_s: float = 0.1
    blocked_s: float = 0.25
    loop_beat_s: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be kept to."""
        if not 0 <= self.process_index < self.processes:
            raise ValueError(
                f"process_index is {self.process_index}: with {self.processes} processes it must be 0 to"
                f" {self.processes - 1}"
            )
        if self.longest_call_s <= 0:
            raise ValueError(
                f"warm_up_s is {self.warm_up_s}: it must be longer than window_s + send_within_s"
                f" ({self.window_s} + {self.send_within_s}) by the longest call"
            )

    @property
    def longest_call_s(self) -> float:
        """Give the longest timeout that a call may have: calls from before a restart are over after the warm-up."""
        return self.warm_up_s - self.window_s - self.send_within_s
