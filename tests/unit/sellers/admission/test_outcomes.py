from __future__ import annotations

from dataclasses import replace

import pytest

from sellers.admission.model import Outcome
from sellers.admission.outcomes import outcome_of
from sellers.model import (
    CallFailed,
    Closed,
    FailureKind,
    OrderNotFound,
    Rejected,
    RejectionReason,
    Unavailable,
    UnavailableReason,
)

NO = Unavailable(UnavailableReason.OUT_OF_STOCK)


def failed(kind: FailureKind, detail: str = "", *, not_done: bool = False) -> CallFailed:
    return CallFailed(kind, definitely_not_done=not_done, detail=detail)


WRONG = failed(FailureKind.INVALID_ANSWER)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (NO, Outcome.SUCCESS),
        (Rejected(RejectionReason.REFUSED, None), Outcome.SUCCESS),
        (Closed(), Outcome.SUCCESS),
        (OrderNotFound(), Outcome.SUCCESS),
        (failed(FailureKind.IN_FLIGHT), Outcome.SUCCESS),
        (failed(FailureKind.RATE_LIMITED), Outcome.FAILURE),
        (replace(failed(FailureKind.RATE_LIMITED), retry_after_s=30.0), Outcome.OURS),
        (failed(FailureKind.SELLER_ERROR), Outcome.FAILURE),
        (WRONG, Outcome.FAILURE),
        (failed(FailureKind.REFUSED), Outcome.FAILURE),
        (failed(FailureKind.NOT_FOUND), Outcome.SUCCESS),
        (failed(FailureKind.NOT_UNDERSTOOD), Outcome.SUCCESS),
        (failed(FailureKind.NO_CREDENTIAL, not_done=True), Outcome.NOT_SENT),
        (failed(FailureKind.TIMED_OUT), Outcome.SILENCE),
        (failed(FailureKind.TIMED_OUT, not_done=True), Outcome.NOT_SENT),
        (failed(FailureKind.UNREACHABLE, "failed to connect to all addresses"), Outcome.UNREACHED),
        (failed(FailureKind.UNREACHABLE, "DNS resolution failed for x"), Outcome.NOT_SENT),
        ((NO, NO, WRONG), Outcome.SUCCESS),
        ((NO, WRONG), Outcome.SUCCESS),
        ((NO, WRONG, WRONG), Outcome.FAILURE),
    ],
    ids=str,
)
def test_what_an_answer_says_of_its_seller(answer: object, outcome: Outcome) -> None:
    assert outcome_of(answer) is outcome
