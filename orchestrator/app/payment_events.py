"""What a payment provider tells by itself: a hint that a payment is to be looked at, never the truth itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from mesh import errors
from orchestrator.domain.observations import PaymentChanged
from orchestrator.ports import ForgedEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.operator_ports import PurchaseRecords
    from orchestrator.ports import Broadcast, ProviderEvent, PurchaseStore

PROVIDER = "provider"
"""Who has observed it."""

_log = structlog.get_logger(__name__)


class PaymentEvents:
    """Takes the provider's events."""

    def __init__(
        self,
        store: PurchaseStore,
        records: PurchaseRecords,
        broadcast: Broadcast,
        *,
        verify: Callable[[bytes, str], ProviderEvent | None] | None,
        wake_worker: Callable[[], bool],
    ) -> None:
        """Keep what is needed.

        ``verify`` tells the provider's events from others' by body and signature, and gives None for one that is about
        no payment; without it there are none. ``wake_worker`` as in ``Purchases``.
        """
        self._store = store
        self._records = records
        self._broadcast = broadcast
        self._verify = verify
        self._wake_worker = wake_worker

    async def receive(self, payload: bytes, signature: str) -> None:
        """Note that a payment of ours has changed. An event that was taken before changes nothing.

        Raises:
            InvalidArgument: reason SIGNATURE_INVALID, when it is not the provider's word.
            Unimplemented: when the provider sends none.

        """
        if self._verify is None:
            raise errors.Unimplemented("this payment provider sends no events")
        try:
            event = self._verify(payload, signature)
        except ForgedEvent as error:
            _log.warning("an event that is not the provider's word", problem=str(error))
            raise errors.InvalidArgument(
                "this is not signed by the payment provider", reason="SIGNATURE_INVALID"
            ) from error
        if event is None:
            return
        request_id = await self._records.of_payment(event.provider_id, event.event_id)
        if request_id is None:
            return
        await self._store.observe(request_id, PROVIDER, PaymentChanged(event.event_id))
        if not self._wake_worker():
            await self._broadcast.work()
