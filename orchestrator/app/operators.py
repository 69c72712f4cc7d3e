"""What the people who operate Bookmesh may do: see what waits for them, see everything of a purchase, and decide."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from mesh import errors
from orchestrator.domain.observations import Decision
from orchestrator.domain.saga import fits

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from orchestrator.domain.observations import Resolve
    from orchestrator.operator_ports import Dossier, FlagRecord, PurchaseRecords
    from orchestrator.ports import Broadcast, PurchaseStore

_DEFAULT_PAGE = 100
_PAGE_TOKEN = re.compile(r"[0-9]{1,18}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FlagPage:
    """Open flags, the oldest first, and the token of the next page, empty after the last."""

    flags: list[FlagRecord]
    next_page_token: str


class Operators:
    """Purchases as operators see them. What they decide is kept with their names, and a worker acts on it."""

    def __init__(
        self,
        store: PurchaseStore,
        records: PurchaseRecords,
        broadcast: Broadcast,
        *,
        wake_worker: Callable[[], bool],
    ) -> None:
        """Keep what is needed; ``wake_worker`` as in ``Purchases``."""
        self._store = store
        self._records = records
        self._broadcast = broadcast
        self._wake_worker = wake_worker

    async def flags(self, page_size: int, page_token: str) -> FlagPage:
        """Give a page of the flags that wait for a decision; 100 when ``page_size`` is 0.

        Raises:
            InvalidArgument: when the page token is not one that was given out.

        """
        if page_token and not _PAGE_TOKEN.fullmatch(page_token):
            field = errors.FieldViolation("page_token", "is not a token that this service gave out")
            msg = f"{field.field}: {field.description}"
            raise errors.InvalidArgument(msg, fields=(field,))
        limit = page_size or _DEFAULT_PAGE
        found = await self._records.open_flags(int(page_token or 0), limit + 1)
        page = found[:limit]
        return FlagPage(page, str(page[-1].flag_id) if len(found) > limit else "")

    async def inspect(self, request_id: UUID) -> Dossier:
        """Give all that is known of a purchase.

        Raises:
            NotFound: when there is none.

        """
        dossier = await self._records.inspect(request_id)
        if dossier is None:
            raise errors.NotFound(
                "there is no purchase with this id", reason="PURCHASE_REQUEST_NOT_FOUND"
            )
        return dossier

    async def resolve(self, request_id: UUID, operator: str, what: Resolve) -> None:
        """Keep a decision about a purchase, for the worker that claims it next.

        Raises:
            NotFound: when there is none.
            InvalidArgument: when the total is not in the purchase's currency.
            FailedPrecondition: reason FLAG_CHANGED, when the flag that was looked at is not the newest open one; reason
                DECISION_DOES_NOT_FIT, when the purchase is in no state for it.

        """
        dossier = await self.inspect(request_id)
        currency = dossier.view.max_price.currency
        if what.total is not None and what.total.currency != currency:
            wrong = f"the purchase is in {currency}, not in {what.total.currency}"
            field = errors.FieldViolation("total", wrong)
            raise errors.InvalidArgument(f"{field.field}: {wrong}", fields=(field,))
        newest = max((r.number for r in dossier.flags if r.resolved_at is None), default=None)
        if what.flag not in (None, newest):
            now = f"flag {newest} is open" if newest is not None else "none is open"
            raise errors.FailedPrecondition(
                f"flag {what.flag} was looked at, but now {now}: look again", reason="FLAG_CHANGED"
            )
        if not _possible(dossier, what):
            msg = (
                f"{what.decision.value} does not fit a purchase that is {dossier.view.status.value} in stage"
                f" {dossier.stage} with payment {dossier.payment.state}, or it has no open flag"
            )
            raise errors.FailedPrecondition(msg, reason="DECISION_DOES_NOT_FIT")
        await self._store.observe(request_id, operator, what)
        _log.info(
            "decided",
            request_id=str(request_id),
            operator=operator,
            decision=what.decision.value,
            why=what.reason,
        )
        if not self._wake_worker():
            await self._broadcast.work()


def _possible(dossier: Dossier, what: Resolve) -> bool:
    if dossier.purchase is not None:
        return fits(dossier.purchase, what)
    # Nobody can read it, so nothing can be decided but that somebody tries again.
    waits = any(record.resolved_at is None for record in dossier.flags)
    return waits and what.decision is Decision.RETRY
