"""What no rule of ours can decide, and who decided it in the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh.money import Money

SYSTEM: Final = "bookmesh"
"""Who resolves a flag when the matter settles by itself."""


class Invariant(StrEnum):
    """What must always be true of a purchase; a flag names the one in doubt."""

    CONFIRMED_BEFORE_CAPTURE = "I1"
    """Nothing is captured unless the seller's latest answer is "confirmed"."""
    ONE_ORDER = "I2"
    """At most one live order, over all sellers, and at most one hold without a committed release."""
    ONE_CAPTURE = "I3"
    """At most one capture, of the order's total, which is at most what is authorized."""
    FINAL_IS_FINAL = "I4"
    """A final status never changes; only allowed edges; the epoch only grows."""
    INTENT_FIRST = "I5"
    """No effect without a committed intent."""
    CHEAPEST_FIRST = "I6"
    """Sellers are tried in order of known total."""
    ENDS = "I7"
    """Every purchase becomes final within a bound."""
    PAID_FOR_WHAT_WAS_BOUGHT = "I8"
    """Purchased means one live order and one capture."""
    NOTHING_LEFT_OVER = "I9"
    """Otherwise there is no order, no hold, and nothing is reserved or charged."""
    SUMS_ADD_UP = "I10"
    """What was authorized is captured or released."""
    TOLD_ONCE = "I11"
    """One message for a purchase and kind of news."""
    LEDGERS_AGREE = "I12"
    """The provider's and the sellers' books equal ours."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that an operator must know or decide.

    Attributes:
        invariant: what is in doubt.
        detail: what was seen, a sentence.
        advice: what to do about it, a sentence.
        amount: the money at stake, where there is any.

    """

    invariant: Invariant
    detail: str
    advice: str
    amount: Money | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The open flags of a purchase are resolved: by whom, and how."""

    by: str
    how: str
