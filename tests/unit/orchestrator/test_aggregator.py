"""What a purchase asks of the aggregator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast
from uuid import UUID

import pytest

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from mesh.money import Money
from orchestrator.adapters.aggregator import AggregatorQuotes
from orchestrator.domain.purchase import Plan, Purchase, Stage
from sellers.model import Condition

if TYPE_CHECKING:
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceAsyncStub

PURCHASE = Purchase(
    request_id=UUID(int=1),
    customer_id="alice",
    book_id="9780134685991",
    max_price=Money("USD", 2999),
    conditions=(Condition.NEW,),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    stage=Stage.COLLECT,
)


@dataclass
class Aggregator:
    """A stub that finds nothing, and keeps what it was asked."""

    asked: list[pb.CollectQuotesRequest] = field(default_factory=list)

    async def CollectQuotes(
        self, request: pb.CollectQuotesRequest, **_: object
    ) -> AsyncIterator[pb.CollectQuotesResponse]:
        self.asked.append(request)
        response = pb.CollectQuotesResponse()
        response.summary.SetInParent()
        yield response


@pytest.mark.parametrize("policy", ["best_price", "balanced", "fast"])
async def test_waits_as_it_is_told_at_first_and_for_everybody_after_a_vain_try(policy: str) -> None:
    aggregator = Aggregator()
    quotes = AggregatorQuotes(cast("QuoteServiceAsyncStub", aggregator), policy)
    again = replace(PURCHASE, plan=Plan(collections=1))
    for purchase in (PURCHASE, again):
        await quotes.collect(purchase, 1.0, lambda _: None)
    assert [(request.policy, request.fresh) for request in aggregator.asked] == [
        (pb.Policy.Value(f"POLICY_{policy.upper()}"), False),
        (pb.POLICY_BEST_PRICE, True),
    ]
