"""How the commands for customers end, for scripts: docs/client.md has the same table."""

from __future__ import annotations

from enum import IntEnum

from bookmesh_client import PurchaseStatus


class Exit(IntEnum):
    """Exit codes; the numbers are a contract."""

    DONE = 0
    """Done; of a purchase: purchased."""
    UNEXPECTED = 1
    """Something that has no code of its own."""
    USAGE = 2
    """The command line, or a value on it, is wrong: no such option, a wrong check digit."""
    PRICE_NOT_MET = 3
    """The cheapest copy costs more."""
    NOT_AVAILABLE = 4
    """No seller has it."""
    FAILED = 5
    """The purchase failed; the card was refused, for example."""
    CANCELLED = 6
    """The purchase was cancelled."""
    REFUSED = 7
    """The token is missing, wrong, or not for this; or there were too many calls."""
    UNREACHABLE = 8
    """Bookmesh was not reached, or cannot answer now."""
    NOT_POSSIBLE = 9
    """There is no such purchase request, or not in its state: an expired offer, a cancel that comes too late."""
    PENDING = 10
    """The purchase was not over in the time to wait for it; it goes on."""
    INTERRUPTED = 130
    """Ctrl-C. A purchase that was asked for goes on."""


OF_STATUS = {
    PurchaseStatus.pending: Exit.PENDING,
    PurchaseStatus.purchased: Exit.DONE,
    PurchaseStatus.price_not_met: Exit.PRICE_NOT_MET,
    PurchaseStatus.not_available: Exit.NOT_AVAILABLE,
    PurchaseStatus.failed: Exit.FAILED,
    PurchaseStatus.cancelled: Exit.CANCELLED,
}
"""By how a purchase stands."""

HELP = (
    "\n\nExit code: 0 purchased, 3 price not met, 4 not available, 5 failed, 6 cancelled, 10 not over yet;"
    " 2 wrong usage, 7 refused, 8 not reached, 9 not possible, 130 interrupted."
)
"""For the help of commands that wait for the end of a purchase."""
