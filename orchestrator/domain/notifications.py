"""How customers are told: when a message is sent again, how a webhook is signed, what its receiver's answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from random import Random

MOST_ENDPOINTS: Final = 10
"""Endpoints a customer, at most."""

SECRET_OVERLAP_S: Final = 24 * 3600.0
"""How long the secret before the present one stays in force, in seconds."""

SECRET_BYTES: Final = 32

SCHEDULE_S: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""How long after the one before each try is made, in seconds; as the Standard Webhooks specification proposes."""

EMAIL_CODE_LIFE_S: Final = 3600.0
"""How long the code that was mailed to an address is good for, in seconds."""

EMAIL_CODE_TRIES: Final = 5
"""Codes that are compared with the one that was mailed, at most."""

MOST_EMAIL_CODES: Final = 5
"""Codes for a customer, and to an address, at most in ``EMAIL_CODES_WITHIN_S``."""

EMAIL_CODES_WITHIN_S: Final = 24 * 3600.0

EMAIL: Final = UUID(int=0)
"""The lane of all e-mail; every webhook endpoint is a lane of its own."""

GONE: Final = "it answered 410 Gone"
DEAD: Final = (
    "nothing was delivered to it for as long as a message is tried, which is about three days"
)
REMOVED: Final = "the endpoint was removed"
SWITCHED_OFF: Final = "the address was removed"

_SECRET_PREFIX = "whsec_"  # noqa: S105  it begins every secret
_JITTER = 0.1
_GONE_STATUS = 410


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it; the HTTP status, where there was one."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """The receiver may have it or not; why, in a sentence for the customer, and the HTTP status where there was one."""

    error: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """The receiver will never take it; why, in a sentence for the customer."""

    error: str


TryOutcome: TypeAlias = Delivered | NotDelivered | Undeliverable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a try.

    Attributes:
        state: where the delivery stands now.
        error: what was wrong, empty when nothing was.
        status: the HTTP status, where there was one.
        next_in_s: seconds until it is tried again; None when it is not.
        gone: why the endpoint is disabled; None when it is not.
        dead: why the endpoint is disabled if nothing has got there since the delivery was made; None when it is not.

    """

    state: DeliveryState
    error: str = ""
    status: int | None = None
    next_in_s: float | None = None
    gone: str | None = None
    dead: str | None = None


def judge(
    outcome: TryOutcome, tries: int, rng: Random, schedule_s: Sequence[float] = SCHEDULE_S
) -> Verdict:
    """Say what follows from the outcome of a try, the ``tries``-th, counted from 1."""
    match outcome:
        case Delivered(status):
            return Verdict(DeliveryState.DELIVERED, status=status)
        case Undeliverable(error):
            return Verdict(DeliveryState.FAILED, error)
        case NotDelivered(error, status) if status == _GONE_STATUS:
            return Verdict(DeliveryState.FAILED, error, status, gone=GONE)
        case NotDelivered(error, status) if tries >= len(schedule_s):
            return Verdict(DeliveryState.FAILED, error, status, dead=DEAD)
        case NotDelivered(error, status):
            delay_s = schedule_s[tries] * rng.uniform(1 - _JITTER, 1 + _JITTER)
            return Verdict(DeliveryState.WAITING, error, status, next_in_s=delay_s)


def write_code(random: bytes) -> str:
    """Give the code of 8 digits that an address is confirmed by, out of 8 random bytes."""
    return f"{int.from_bytes(random) % 10**8:08}"


def write_secret(secret: bytes) -> str:
    """Give a secret as its receiver keeps it: "whsec_" and its base64."""
    return _SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(
    message_id: str, now: datetime, body: str, secrets: Sequence[str]
) -> dict[str, str]:
    """Give the headers that prove a webhook, one signature for each secret.

    Standard Webhooks 1.0.0: "v1," and the base64 of HMAC-SHA-256 over ``{id}.{Unix seconds}.{body}``, with spaces
    between.
    """
    timestamp = str(int(now.timestamp()))
    content = f"{message_id}.{timestamp}.{body}".encode()
    signatures = (
        base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()
        for secret in secrets
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
