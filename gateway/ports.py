"""What the gateway's RPCs need of the world.

The gateway keeps nothing and decides nothing about purchases: between the customer's contract and the orchestrator's
there is no third form of a purchase here, so the orchestrator's port speaks the orchestrator's messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from bookmesh.orchestrator.v1 import orchestrator_pb2


class Orchestrator(Protocol):
    """The orchestrators, as one.

    All raise what the orchestrator answered; Unavailable with ``retry_after_s`` when none can be reached.
    """

    async def submit(
        self, request: orchestrator_pb2.SubmitPurchaseRequest
    ) -> orchestrator_pb2.Purchase:
        """Commit a purchase, wait for its authorization up to ``authorization_wait``; give it as it then is."""
        ...

    async def get(self, customer_id: str, request_id: str) -> orchestrator_pb2.Purchase:
        """Give a purchase.

        Raises:
            NotFound: when this customer has none with this id.

        """
        ...

    async def page(
        self, request: orchestrator_pb2.ListPurchasesRequest
    ) -> orchestrator_pb2.ListPurchasesResponse:
        """Give a page of a customer's purchases, newest first.

        Raises:
            InvalidArgument: naming ``page_token``, when it is not one that was given out for such a list.

        """
        ...

    async def cancel(
        self, request: orchestrator_pb2.CancelPurchaseRequest
    ) -> orchestrator_pb2.Purchase:
        """Have a purchase cancelled, wait for its end up to ``wait``; give it as it then is.

        Raises:
            NotFound: as ``get``.
            FailedPrecondition: reason CANNOT_CANCEL.

        """
        ...

    async def accept_offer(
        self, request: orchestrator_pb2.AcceptOfferRequest
    ) -> orchestrator_pb2.Purchase:
        """Make a purchase of an offer and wait for its authorization as ``submit`` does.

        Raises:
            NotFound: as ``get``.
            FailedPrecondition: reason NO_OFFER, OFFER_EXPIRED or PAYMENT_TOKEN_REQUIRED.

        """
        ...

    def watch(
        self, customer_id: str, request_id: str
    ) -> AsyncIterator[orchestrator_pb2.WatchPurchaseResponse]:
        """Give all events of a purchase from the first, each once, as they happen; end after its ``result``.

        Raises:
            NotFound: as ``get``.

        """
        ...


class PaymentEvents(Protocol):
    """The orchestrators' ear for the payment provider."""

    async def receive(self, request: orchestrator_pb2.ReceivePaymentEventRequest) -> None:
        """Note an event, once however often it comes.

        Raises:
            InvalidArgument: reason SIGNATURE_INVALID, when it is not the provider's word.
            Unimplemented: when the provider sends none.

        """
        ...
