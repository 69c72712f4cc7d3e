"""The health of sellers over real gRPC, from real admission over real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from protovalidate import Validator

from aggregator.app.health import HealthObserver
from aggregator.domain.outlook import Outlooks
from aggregator.servicer import SellerHealthServicer
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
    SellerHealthServiceStub,
    add_SellerHealthServiceServicer_to_server,
)
from mesh.clock import SystemClock
from mesh.convert import seconds
from mesh.grpc.interceptor import ServiceInterceptor
from sellers.admission.admission import Admission, rules_of
from sellers.admission.model import AdmissionSettings, Allowed, Ask, Limits, Outcome, Purpose
from sellers.admission.valkey import valkey_ledger
from sellers.model import Unavailable, UnavailableReason
from sellers.registry import Directory
from tests.fakes.seller import registered

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import SellerHealthServiceAsyncStub

WATCH = "/bookmesh.aggregator.v1.SellerHealthService/WatchSellerHealth"
ACME, BETA = registered("acme", "acme:1"), registered("beta", "beta:1")
SETTINGS = AdmissionSettings(breaker_calls=3, valkey_timeout_s=5.0)


@dataclass(frozen=True, slots=True)
class Replica:
    """A service, and what it takes its knowledge from."""

    health: SellerHealthServiceAsyncStub
    admission: Admission
    outlooks: Outlooks
    observer: HealthObserver

    async def call(self, outcome: Outcome) -> None:
        """Have ACME called, with this end."""
        ask = Ask(Limits.of(ACME), timeout_s=1.0, books=1)
        [decision] = await self.admission.admit([ask], Purpose.QUOTE)
        assert isinstance(decision, Allowed)
        self.admission.report(decision.grant, outcome)
        await self.admission.flush()


@pytest.fixture
async def replica(valkey_url: str) -> AsyncIterator[Replica]:
    clock, directory, outlooks = SystemClock(), Directory(), Outlooks()
    directory.replace([ACME, BETA], 1)
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            valkey_ledger(valkey_url, rules_of(SETTINGS), timeout_s=SETTINGS.valkey_timeout_s)
        )
        await ledger.declare_quiet()
        admission = Admission(ledger, clock, SETTINGS, sellers=list, quiet=True)
        observer = HealthObserver(directory, admission, outlooks, look_every_s=0.01)
        interceptor = ServiceInterceptor(
            Validator(), default_timeout_s=10, unbounded=(WATCH,), only="bookmesh."
        )
        server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
        add_SellerHealthServiceServicer_to_server(SellerHealthServicer(observer), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield Replica(SellerHealthServiceStub(channel), admission, outlooks, observer)


async def test_a_seller_s_health_is_what_its_calls_have_shown(replica: Replica) -> None:
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE):
        await replica.call(outcome)
    for latency_s in [0.1] * 80 + [1.0] * 15:
        no = Unavailable(UnavailableReason.OUT_OF_STOCK)
        replica.outlooks.learn_latency("acme", no, latency_s)
    response = await replica.health.GetSellerHealth(pb.GetSellerHealthRequest())
    acme, beta = response.sellers
    assert (acme.seller_id, acme.state, acme.breaker) == (
        "acme",
        pb.Seller.STATE_ACTIVE,
        pb.SellerHealth.BREAKER_CLOSED,
    )
    assert (acme.calls, acme.failures, acme.budget_left, acme.in_flight) == (2, 1, 98, 0)
    assert acme.from_fleet
    p50, p90 = seconds(acme.latency_p50), seconds(acme.latency_p90)
    assert 0.05 < p50 < p90 < 1.5
    assert not acme.HasField("breaker_since")
    assert (beta.calls, beta.budget_left, beta.HasField("latency_p50")) == (0, 100, False)


async def test_who_watches_sees_a_breaker_open_and_nothing_of_the_others(
    replica: Replica,
) -> None:
    messages = aiter(replica.health.WatchSellerHealth(pb.WatchSellerHealthRequest()))
    first = await anext(messages)
    assert [seller.seller_id for seller in first.sellers] == ["acme", "beta"]
    for _ in range(SETTINGS.breaker_calls):
        await replica.call(Outcome.FAILURE)
    acme = first.sellers[0]
    while acme.breaker != pb.SellerHealth.BREAKER_OPEN:
        [acme] = (await anext(messages)).sellers
        assert acme.seller_id == "acme"
    assert acme.failures == SETTINGS.breaker_calls
    assert acme.HasField("breaker_since")
    replica.observer.close()
    async for message in messages:
        assert {seller.seller_id for seller in message.sellers} == {"acme"}


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["acme", "nobody"], grpc.StatusCode.NOT_FOUND),
        (["acme", "acme"], grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_names_that_make_no_sense_are_refused(
    replica: Replica, names: list[str], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as got:
        await replica.health.GetSellerHealth(pb.GetSellerHealthRequest(seller_ids=names))
    watch = replica.health.WatchSellerHealth(pb.WatchSellerHealthRequest(seller_ids=names))
    with pytest.raises(grpc.aio.AioRpcError) as watched:
        await watch.read()
    assert got.value.code() is watched.value.code() is code


async def test_health_can_be_had_page_by_page(replica: Replica) -> None:
    pages = list[list[str]]()
    token, more = "", True
    while more:
        page = await replica.health.GetSellerHealth(
            pb.GetSellerHealthRequest(page_size=1, page_token=token)
        )
        pages.append([seller.seller_id for seller in page.sellers])
        token, more = page.next_page_token, bool(page.next_page_token)
    assert pages == [["acme"], ["beta"]]
