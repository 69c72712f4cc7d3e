"""Payments as the simulated provider keeps them. Amounts are in the units that Stripe counts a currency in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Status(StrEnum):
    """Stripe's words for where a payment intent stands."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_ACTION = "requires_action"
    REQUIRES_CAPTURE = "requires_capture"
    CANCELED = "canceled"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a card was declined, in Stripe's words."""

    code: str
    decline_code: str | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment intent that is captured by hand.

    Attributes:
        intent_id: ``pi_...``.
        created: Unix seconds.
        amount: what was to be reserved.
        currency: in lower case.
        card: the name of the card (``psp_sim.domain.cards``).
        metadata: the merchant's.
        status: where it stands.
        charge_id: ``ch_...`` once something was reserved.
        capture_before: Unix seconds when the reservation lapses.
        captured: what was charged.
        failure: why the card was declined.
        cancellation_reason: Stripe's word for why it was canceled.

    """

    intent_id: str
    created: int
    amount: int
    currency: str
    card: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: Status = Status.REQUIRES_PAYMENT_METHOD
    charge_id: str | None = None
    capture_before: int | None = None
    captured: int = 0
    failure: Failure | None = None
    cancellation_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    """Money given back, or, when ``status`` is ``failed``, not."""

    refund_id: str
    intent_id: str
    created: int
    amount: int
    status: str
    metadata: Mapping[str, str]


class ApiError(Exception):
    """A request that is refused: HTTP status and what Stripe's error object says.

    ``kept`` says whether the answer is kept under the idempotency key: Stripe keeps what happened once it began to
    work, and does not keep the refusal of wrong parameters.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kept: bool = False,
    ) -> None:
        """Keep what the caller will be told."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code
        self.param = param
        self.kept = kept


def wrong(message: str, param: str, code: str | None = None) -> ApiError:
    """Make the refusal of a wrong parameter."""
    return ApiError(400, "invalid_request_error", message, code=code, param=param)


def missing(what: str, name: str, status: int = 404, param: str = "intent") -> ApiError:
    """Make the refusal for something that does not exist."""
    return ApiError(
        status,
        "invalid_request_error",
        f"No such {what}: '{name}'",
        code="resource_missing",
        param=param,
    )
