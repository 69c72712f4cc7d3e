"""From what a seller answered to what admission makes of it."""

from __future__ import annotations

from sellers.admission.model import Outcome
from sellers.model import CallFailed, FailureKind

_NO_NAME = ("errors resolving", "dns resolution failed")
"""How grpc says that a name has no address: no seller has seen the call, and our own resolver may be the reason."""

_OUTCOMES = {
    FailureKind.IN_FLIGHT: Outcome.SUCCESS,
    FailureKind.KEY_MISMATCH: Outcome.SUCCESS,
    FailureKind.NOT_FOUND: Outcome.SUCCESS,
    # What a customer names a book must not cost the others its seller.
    FailureKind.NOT_UNDERSTOOD: Outcome.SUCCESS,
    FailureKind.TIMED_OUT: Outcome.SILENCE,
    FailureKind.UNREACHABLE: Outcome.UNREACHED,
}
"""What calls that failed are, other than failures."""


def outcome_of(answer: object) -> Outcome:
    """Say how a call ended, from any outcome of ``SellerTransport``: the one rule for whom a call blames.

    Whatever the seller is free to say is a success ("sold out", "rejected", "not found"); a batch is, if at least half
    of its books got a proper answer. A call that was cancelled has no answer: report it as OURS.
    """
    if isinstance(answer, tuple):
        wrong = sum(isinstance(item, CallFailed) for item in answer)
        return Outcome.FAILURE if wrong * 2 > len(answer) else Outcome.SUCCESS
    if not isinstance(answer, CallFailed):
        return Outcome.SUCCESS
    if _was_never_sent(answer):
        return Outcome.NOT_SENT
    if answer.kind is FailureKind.RATE_LIMITED and answer.retry_after_s:
        # It works, and says when it wants to be called again.
        return Outcome.OURS
    return _OUTCOMES.get(answer.kind, Outcome.FAILURE)


def _was_never_sent(failed: CallFailed) -> bool:
    """Say whether the seller cannot have seen the call, for a reason that is ours."""
    match failed.kind:
        case FailureKind.NO_CREDENTIAL:
            return True
        case FailureKind.TIMED_OUT:
            return failed.definitely_not_done
        case FailureKind.UNREACHABLE:
            return failed.detail.lower().startswith(_NO_NAME)
        case _:
            return False
