"""Sellers are called as admission has it, and admission hears what they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from bench.virtual_time import VirtualClock
from mesh.money import Money
from orchestrator.adapters.sellers import TransportSellers
from orchestrator.domain.purchase import Purchase
from sellers.admission.admission import Admission
from sellers.admission.model import AdmissionSettings
from sellers.model import CallFailed, Condition, FailureKind, OrderNotFound
from sellers.registry import Directory
from sellers.transport import SellerTransport
from tests.fakes.asking import SharedLedger, in_virtual_time, seller

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
    """Stands for the transport to a seller that wants to be left alone."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def get_quote(self, *_: object, **__: object) -> CallFailed:
        self.calls.append("GetQuote")
        return CallFailed(
            FailureKind.RATE_LIMITED, definitely_not_done=True, detail="", retry_after_s=30.0
        )

    async def get_order(self, *_: object, **__: object) -> OrderNotFound:
        self.calls.append("GetOrder")
        return OrderNotFound()


@in_virtual_time
async def test_a_seller_that_asks_for_it_is_left_alone_by_every_process() -> None:
    ledger, clock, directory, busy = SharedLedger(SETTINGS), VirtualClock(), Directory(), Busy()
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
