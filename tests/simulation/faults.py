"""What can go wrong at a crossing of the seam, and schedules of it, as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise


class Fault(StrEnum):
    """What happens at a crossing instead of the usual."""

    CRASH_BEFORE = "crash_before"
    """The process is killed before anything is sent."""
    CRASH_AFTER = "crash_after"
    """The process is killed when the other side has done it."""
    LOST_REQUEST = "lost_request"
    """The request does not arrive; the caller waits for its answer in vain. Of a commit: it was not made."""
    LOST_ANSWER = "lost_answer"
    """It is done; the caller waits for the answer in vain. Of a commit: it was made."""
    LATE = "late"
    """The request arrives long after the caller has given up."""
    UNAVAILABLE = "unavailable"
    """It is not done, and the caller is told so at once; a seller promises it, others just fail."""
    CLAIMED = "claimed"
    """It is done, and the caller is told at once that the other side is unavailable."""
    FREEZE_BEFORE = "freeze_before"
    """The process stands still for longer than its lease before it sends anything, then goes on."""
    FREEZE_AFTER = "freeze_after"
    """It stands still when the other side has done it."""
    STALL = "stall"
    """It stands still then for less than its lease, but longer than sellers may work on a call."""
    SESSION_LOST = "session_lost"
    """The worker's session ends although the worker lives."""
    DRAIN = "drain"
    """The process is told to stop, for a deploy; another is started in its place."""
    CANCEL = "cancel"
    """The customer cancels."""
    WEAR_OUT = "wear_out"
    """The process is killed, as were so many before it that what it worked on is left to an operator."""
    VANISH = "vanish"
    """The sellers of which the scenario says so are disabled in the registry."""
    SHRINK = "shrink"
    """The sellers of which the scenario says so allow few calls from now on."""


class Kind(StrEnum):
    """Kinds of crossings, by what can go wrong there."""

    SELLER = "seller"
    """A call that changes something at a seller."""
    PAYMENT = "payment"
    """A call that changes something at the provider."""
    RECEIVER = "receiver"
    """A message to a customer."""
    QUESTION = "question"
    """A call that changes nothing."""
    COMMIT = "commit"
    """An operation of the store that changes something, whoever asks for it."""
    FENCED = "fenced"
    """One that changes something only for the worker that has claimed it last."""
    LOOK = "look"
    """An operation of the store that changes nothing."""
    WAKE = "wake"
    """A wake-up of others, on which nothing depends."""


_STOPS = (
    *(Fault.CRASH_BEFORE, Fault.CRASH_AFTER),
    *(Fault.FREEZE_BEFORE, Fault.FREEZE_AFTER, Fault.STALL),
)
_LOSSES = (Fault.LOST_REQUEST, Fault.LOST_ANSWER, Fault.LATE)
_REFUSALS = (Fault.UNAVAILABLE, Fault.CLAIMED)

ALL: dict[Kind, tuple[Fault, ...]] = {
    Kind.SELLER: (*_STOPS, *_LOSSES, *_REFUSALS, Fault.SESSION_LOST),
    Kind.PAYMENT: (*_STOPS, *_LOSSES, *_REFUSALS, Fault.SESSION_LOST),
    Kind.RECEIVER: (*_STOPS, *_LOSSES, *_REFUSALS),
    Kind.QUESTION: (*_STOPS, Fault.LOST_REQUEST, Fault.UNAVAILABLE, Fault.SESSION_LOST),
    Kind.COMMIT: (*_STOPS, *_LOSSES, Fault.SESSION_LOST),
    Kind.FENCED: (*_STOPS, *_LOSSES, Fault.SESSION_LOST),
    Kind.LOOK: (*_STOPS, Fault.LOST_REQUEST),
    Kind.WAKE: (*_STOPS, Fault.LOST_REQUEST),
}
"""What is tried alone at a crossing, by its kind: all that can be."""

_WORK = (Fault.CRASH_AFTER, Fault.FREEZE_BEFORE, Fault.FREEZE_AFTER, *_LOSSES)

PAIRED: dict[Kind, tuple[Fault, ...]] = {
    Kind.SELLER: (*_WORK, Fault.UNAVAILABLE),
    Kind.PAYMENT: _WORK,
    Kind.RECEIVER: _WORK,
    Kind.QUESTION: (Fault.FREEZE_AFTER, Fault.LOST_REQUEST),
    Kind.COMMIT: (Fault.CRASH_AFTER, Fault.FREEZE_AFTER, *_LOSSES),
    Kind.FENCED: (Fault.CRASH_AFTER, Fault.FREEZE_AFTER, Fault.LOST_ANSWER),
    Kind.LOOK: (),
    Kind.WAKE: (),
}
"""What is tried in pairs. Left out is what gives the orchestrator's code the same as another fault:

- CRASH_BEFORE is CRASH_AFTER of what the process did before: in between it only computes. Where nothing changes on the
  other side (questions, looks) CRASH_AFTER is the same too, and where nobody acts on it (wake-ups) every stop is the
  one after the commit before.
- FREEZE_BEFORE a commit or a look is FREEZE_AFTER the call or claim before it, for the same reason.
- CLAIMED is LOST_ANSWER, and of payments and questions UNAVAILABLE is LOST_REQUEST: the same value, seconds sooner.
- LATE of what is fenced is LOST_REQUEST: by then it was claimed again. That the fence holds, single faults show. And
  LOST_REQUEST of it is CRASH_AFTER of the call before: what was not committed is left to another claim.
- LOST_REQUEST of a look at what was claimed is LOST_ANSWER of the claim: nobody works on it until the lease is over.
- STALL is a FREEZE in which nobody takes over.
- SESSION_LOST lets another worker take over while this one works on: so does FREEZE, from the other worker's view.
"""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault that is to happen at the crossing of a number; ``seconds`` replaces the usual delay or freeze."""

    crossing: int
    fault: Fault
    seconds: float | None = None

    def __str__(self) -> str:
        """Give it as it stands in a schedule."""
        return f"{self.crossing}:{self.fault.value}" + (
            f"={self.seconds:g}" if self.seconds else ""
        )


Schedule = tuple[Planned, ...]

_PLANNED = re.compile(r"(?P<crossing>\d+):(?P<fault>[a-z_]+)(=(?P<seconds>\d+(\.\d+)?))?")

EVENTS = (Fault.DRAIN, Fault.CANCEL, Fault.WEAR_OUT, Fault.VANISH, Fault.SHRINK)
"""What may happen at any crossing, whatever its kind."""
_TIMED = frozenset({Fault.LATE, Fault.FREEZE_BEFORE, Fault.FREEZE_AFTER, Fault.STALL})


def to_text(schedule: Schedule) -> str:
    """Give a schedule as one word."""
    return ",".join(map(str, schedule)) or "-"


def from_text(text: str) -> Schedule:
    """Read what ``to_text`` has written.

    Raises:
        ValueError: when it is not of that form: says which part, and what could stand there.

    """
    if text == "-":
        return ()
    schedule = tuple(map(_planned, text.split(",")))
    for one, other in pairwise(schedule):
        if one.crossing >= other.crossing:
            raise ValueError(f"{other} comes after {one}: crossings must go up, one fault at each")
    return schedule


def _planned(part: str) -> Planned:
    match = _PLANNED.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not CROSSING:FAULT or CROSSING:FAULT=SECONDS")
    if match["fault"] not in {fault.value for fault in Fault}:
        raise ValueError(f"{part!r}: no fault is called so; there are {', '.join(Fault)}")
    fault = Fault(match["fault"])
    if match["seconds"] and fault not in _TIMED:
        raise ValueError(f"{part!r}: only {', '.join(sorted(_TIMED))} take seconds")
    seconds = float(match["seconds"]) if match["seconds"] else None
    return Planned(int(match["crossing"]), fault, seconds)
