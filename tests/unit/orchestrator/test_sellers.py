"""Sellers are called as admission has it, and admission hears what they say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock
from uuid import UUID

import pytest

from bench.virtual_time import VirtualClock
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from mesh import errors
from mesh.money import Money
from orchestrator.adapters.sales import Sale, SaleReports
from orchestrator.adapters.sellers import TransportSellers
from orchestrator.domain.purchase import Attempt, Purchase
from sellers.admission.admission import Admission
from sellers.admission.model import AdmissionSettings
from sellers.model import (
    CallFailed,
    Condition,
    Confirmed,
    FailureKind,
    Held,
    OrderNotFound,
    Rejected,
    RejectionReason,
)
from sellers.registry import Directory
from sellers.transport import SellerTransport
from tests.fakes.asking import SharedLedger, in_virtual_time, seller

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceAsyncStub

PURCHASE = Purchase(
    request_id=UUID(int=1),
    customer_id="alice",
    book_id="9780134685991",
    max_price=Money("USD", 2999),
    conditions=(Condition.NEW,),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
SETTINGS = AdmissionSettings()


class Busy:
    """Stands for the transport to a seller that is called too often; it may say for how long to leave it alone."""

    def __init__(self, for_s: float | None = None) -> None:
        self.calls: list[str] = []
        self._for_s = for_s

    async def get_quote(self, *_: object, **__: object) -> CallFailed:
        self.calls.append("GetQuote")
        return CallFailed(
            FailureKind.RATE_LIMITED, definitely_not_done=True, detail="", retry_after_s=self._for_s
        )

    async def get_order(self, *_: object, **__: object) -> OrderNotFound:
        self.calls.append("GetOrder")
        return OrderNotFound()


@in_virtual_time
async def test_a_seller_that_asks_for_it_is_left_alone_by_every_process() -> None:
    ledger, clock, directory, busy = SharedLedger(SETTINGS), VirtualClock(), Directory(), Busy(30.0)
    directory.replace([seller("acme")], 1)
    admissions = [Admission(ledger, clock, SETTINGS, sellers=list, quiet=True) for _ in range(2)]
    first, second = (
        TransportSellers(directory, cast("SellerTransport", busy), admission, clock)
        for admission in admissions
    )
    assert isinstance(await first.requote(PURCHASE, "acme"), CallFailed)
    await admissions[0].flush()
    for one in (first, second):
        refused = await one.requote(PURCHASE, "acme")
        assert isinstance(refused, CallFailed)
        assert refused.definitely_not_done
        assert refused.detail == "not called: no_budget"
    assert busy.calls == ["GetQuote"]
    # What is unknown is resolved all the same.
    assert await second.find_order("acme", "key") == OrderNotFound()
    await clock.sleep(30)
    await second.requote(PURCHASE, "acme")
    assert busy.calls == ["GetQuote", "GetOrder", "GetQuote"]


@in_virtual_time
async def test_a_seller_that_does_not_say_for_how_long_is_left_alone_for_a_moment() -> None:
    clock, directory, busy = VirtualClock(), Directory(), Busy()
    directory.replace([seller("acme")], 1)
    admission = Admission(SharedLedger(SETTINGS), clock, SETTINGS, sellers=list, quiet=True)
    sellers = TransportSellers(directory, cast("SellerTransport", busy), admission, clock)
    await sellers.requote(PURCHASE, "acme")
    began_s = clock.monotonic()
    await sellers.requote(PURCHASE, "acme")
    assert busy.calls == ["GetQuote", "GetQuote"]
    assert clock.monotonic() - began_s >= SETTINGS.unsaid_s


class Decided:
    """Stands for the transport to a seller that answers a hold and an order with what it is told to."""

    def __init__(self, hold: object, order: object) -> None:
        self.hold_book = AsyncMock(return_value=hold)
        self.place_order = AsyncMock(return_value=order)


SOON = datetime(2027, 1, 1, tzinfo=UTC)
ATTEMPT = Attempt(
    number=1,
    seller_id="acme",
    key="key",
    quote_id="quote",
    quoted=Money("USD", 2000),
    with_hold=True,
    not_after=SOON,
    agreed=Money("USD", 2000),
)
FAILED = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")


@pytest.mark.parametrize("name", ["hold", "place_order"])
@pytest.mark.parametrize("asked", [True, False], ids=["tells of orders", "does not"])
def test_what_has_waited_for_a_slot_past_its_not_after_is_not_sent(
    name: str, *, asked: bool
) -> None:
    """Save to a seller that cannot be asked what became of an order: it is asked by sending again."""

    @in_virtual_time
    async def main() -> None:
        clock, directory = VirtualClock(), Directory()
        acme = seller("acme")
        capabilities = replace(acme.capabilities, supports_get_order=asked)
        directory.replace([replace(acme, capabilities=capabilities)], 1)
        admission = Admission(SharedLedger(SETTINGS), clock, SETTINGS, sellers=list, quiet=True)
        decided = Decided(FAILED, FAILED)
        sellers = TransportSellers(directory, cast("SellerTransport", decided), admission, clock)
        admission.hold_off("acme", 1.0)
        call = getattr(sellers, name)
        calls = decided.hold_book if name == "hold" else decided.place_order
        for left_s, made in ((0.5, not asked), (1.5, True)):
            calls.reset_mock()
            not_after = clock.now() + timedelta(seconds=left_s)
            outcome = await call(PURCHASE, replace(ATTEMPT, not_after=not_after))
            assert outcome.definitely_not_done is not made
            assert calls.call_count == made

    main()


@pytest.mark.parametrize(
    ("hold", "order", "told"),
    [
        (Held("h", Money("USD", 2000), SOON), Confirmed("o", Money("USD", 2000)), [False]),
        (Held("h", Money("USD", 2000), SOON), Rejected(RejectionReason.REFUSED, None), [True]),
        (Held("h", Money("USD", 2001), SOON), Confirmed("o", Money("USD", 2001)), [True]),
        (Rejected(RejectionReason.OUT_OF_STOCK, None), FAILED, [True]),
        (Rejected(RejectionReason.PRICE_CHANGED, None), FAILED, [True]),
        (Rejected(RejectionReason.QUOTE_EXPIRED, None), FAILED, []),
        (FAILED, FAILED, []),
    ],
    ids=["sold", "refused", "dearer", "sold out", "changed", "too late", "unknown"],
)
@in_virtual_time
async def test_it_is_told_whether_a_seller_stands_by_its_quote(
    hold: object, order: object, told: list[bool]
) -> None:
    directory, clock, sales = Directory(), VirtualClock(), list[Sale]()
    directory.replace([seller("acme")], 1)
    admission = Admission(SharedLedger(SETTINGS), clock, SETTINGS, sellers=list, quiet=True)
    transport = cast("SellerTransport", Decided(hold, order))
    sellers = TransportSellers(directory, transport, admission, clock, on_sale=sales.append)
    await sellers.hold(PURCHASE, ATTEMPT)
    await sellers.place_order(PURCHASE, ATTEMPT)
    assert sales == [Sale(PURCHASE.book_id, "acme", refused) for refused in told]


class Aggregator:
    """Stands for the stub of an aggregator that is gone at first."""

    def __init__(self) -> None:
        self.told: list[tuple[pb.ReportSaleRequest, object]] = []
        self.enough = asyncio.Event()

    async def ReportSale(
        self, request: pb.ReportSaleRequest, **options: object
    ) -> pb.ReportSaleResponse:
        self.told.append((request, options["metadata"]))
        if len(self.told) == 1:
            raise errors.Unavailable("no aggregator")
        self.enough.set()
        return pb.ReportSaleResponse()


async def test_the_aggregator_is_told_of_sales_although_it_could_not_be_told_of_one() -> None:
    gone = Aggregator()
    reports = SaleReports(cast("QuoteServiceAsyncStub", gone))
    passing_on = asyncio.create_task(reports.run())
    reports.tell(Sale("book 1", "acme", refused=True))
    reports.tell(Sale("book 2", "zeta", refused=False))
    await gone.enough.wait()
    passing_on.cancel()
    assert [(request.seller_id, request.outcome, said) for request, said in gone.told] == [
        ("acme", pb.ReportSaleRequest.OUTCOME_REFUSED, (("book-id", "book%201"),)),
        ("zeta", pb.ReportSaleRequest.OUTCOME_SOLD, (("book-id", "book%202"),)),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "supports_holds",
        "supports_cancel_before_order",
        "supports_get_order",
        "honours_not_after",
    ],
)
@pytest.mark.parametrize("can", [True, False])
async def test_a_purchase_knows_of_a_seller_what_the_registry_does(name: str, *, can: bool) -> None:
    acme, directory = seller("acme"), Directory()
    said: dict[str, Any] = {name: can}
    known = replace(acme, capabilities=replace(acme.capabilities, **said))
    directory.replace([known], 1)
    clock = VirtualClock()
    admission = Admission(SharedLedger(SETTINGS), clock, SETTINGS, sellers=list, quiet=True)
    sellers = TransportSellers(directory, cast("SellerTransport", Busy()), admission, clock)
    kind = sellers.kind_of("acme")
    assert getattr(kind, name) is can
    assert sellers.kind_of("nobody") is None
