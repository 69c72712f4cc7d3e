"""Orchestrators that do what a test says, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from protovalidate import Validator

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from mesh import convert, errors
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.money import Money

SERVICE = pb.DESCRIPTOR.services_by_name["PurchaseService"].full_name
PURCHASE_ID = "01980000-0000-7000-8000-000000000001"
STREAM_ENDS = pb.WatchPurchaseResponse()
"""In a replica's history: the stream ends here, without a result."""

Context = grpc.aio.ServicerContext[Any, Any]


def purchase(status: str = "PENDING", more: pb.Purchase | None = None) -> pb.Purchase:
    made = pb.Purchase(
        request_id=PURCHASE_ID,
        status=pb.Purchase.Status.Value(f"STATUS_{status}"),
        book_id="9780134685991",
        max_price=convert.money_to_proto(Money("USD", 2999)),
    )
    made.MergeFrom(more or pb.Purchase())
    return made


def failed(word: str) -> pb.Purchase:
    reason = pb.Purchase.FailureReason.Value(f"FAILURE_REASON_{word.upper()}")
    return purchase("FAILED", pb.Purchase(failure_reason=reason))


def step(event_id: str, name: str) -> pb.WatchPurchaseResponse:
    return pb.WatchPurchaseResponse(
        event_id=event_id, step=pb.Step(name=pb.Step.Name.Value(f"NAME_{name}"))
    )


def result(event_id: str, final: pb.Purchase) -> pb.WatchPurchaseResponse:
    return pb.WatchPurchaseResponse(event_id=event_id, result=final)


@dataclass
class Script:
    """What all replicas answer, and what they were asked.

    Attributes:
        purchase: what submit, get, cancel and accept answer.
        page: what list answers.
        error: raised instead of any answer.
        asked: requests, as they came.
        time_left_s: what each call had left.

    """

    purchase: pb.Purchase = field(default_factory=purchase)
    page: pb.ListPurchasesResponse = field(default_factory=pb.ListPurchasesResponse)
    error: errors.MeshError | None = None
    asked: list[Message] = field(default_factory=list)
    time_left_s: list[float] = field(default_factory=list)


class OrchestratorReplica(pb_grpc.PurchaseServiceServicer):
    """One orchestrator. Its watches stream ``history``, and go on with what happens.

    Attributes:
        asked: how often it was called.
        unavailable: its submits do the work, then the answer is lost.
        watched: watches that it began.
        left: set when a watch was given up by its caller.

    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked = 0
        self.unavailable = False
        self.watched = 0
        self.left = asyncio.Event()
        self._history: list[pb.WatchPurchaseResponse] = []
        self._grown = asyncio.Condition()
        self._health = health.aio.HealthServicer()
        interceptor = ServiceInterceptor(
            Validator(),
            default_timeout_s=10.0,
            unbounded=[f"/{SERVICE}/WatchPurchase"],
            only="bookmesh.",
        )
        self._server = grpc.aio.server(
            interceptors=[interceptor], options=[("grpc.so_reuseport", 0)]
        )
        pb_grpc.add_PurchaseServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> None:
        await self.serve(yes=True)
        await self._server.start()

    async def serve(self, *, yes: bool) -> None:
        words = health_pb2.HealthCheckResponse
        await self._health.set(SERVICE, words.SERVING if yes else words.NOT_SERVING)

    async def kill(self) -> None:
        await self._server.stop(None)

    async def happen(self, *events: pb.WatchPurchaseResponse) -> None:
        async with self._grown:
            self._history.extend(events)
            self._grown.notify_all()

    async def SubmitPurchase(
        self, request: pb.SubmitPurchaseRequest, context: Context
    ) -> pb.SubmitPurchaseResponse:
        self._note(request, context)
        if self.unavailable:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset by 10.0.0.7")
        return pb.SubmitPurchaseResponse(purchase=self.script.purchase)

    async def GetPurchase(
        self, request: pb.GetPurchaseRequest, context: Context
    ) -> pb.GetPurchaseResponse:
        self._note(request, context)
        return pb.GetPurchaseResponse(purchase=self.script.purchase)

    async def ListPurchases(
        self, request: pb.ListPurchasesRequest, context: Context
    ) -> pb.ListPurchasesResponse:
        self._note(request, context)
        return self.script.page

    async def CancelPurchase(
        self, request: pb.CancelPurchaseRequest, context: Context
    ) -> pb.CancelPurchaseResponse:
        self._note(request, context)
        return pb.CancelPurchaseResponse(purchase=self.script.purchase)

    async def AcceptOffer(
        self, request: pb.AcceptOfferRequest, context: Context
    ) -> pb.AcceptOfferResponse:
        self._note(request, context)
        return pb.AcceptOfferResponse(purchase=self.script.purchase)

    async def WatchPurchase(
        self, request: pb.WatchPurchaseRequest, context: Context
    ) -> AsyncIterator[pb.WatchPurchaseResponse]:
        self._note(request, context)
        self.watched += 1
        sent = 0
        try:
            while True:
                async with self._grown:
                    while len(self._history) == sent:
                        await self._grown.wait()
                for event in self._history[sent:]:
                    if event == STREAM_ENDS:
                        return
                    sent += 1
                    yield event
        except asyncio.CancelledError:
            self.left.set()
            raise

    def _note(self, request: Message, context: Context) -> None:
        self.asked += 1
        self.script.asked.append(request)
        self.script.time_left_s.append(context.time_remaining())
        if self.script.error is not None:
            raise self.script.error
