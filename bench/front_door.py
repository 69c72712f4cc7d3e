"""The way through the front door: REST and gRPC through Envoy against gRPC straight to a gateway, and submits a second.

One customer asks for the same finished purchase again and again, each way in turn. Then as many customers as there are
submit purchases as fast as they can; the purchases go on meanwhile, on the same two cores.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import grpc

from bench.harness import OnProgress, Result, spread
from bench.shop import Buyers, buyers, shop
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceStub
from deploy.local.mesh import LocalMesh

TITLE = "the front door"
AIM = 1.5
ROUNDS, CALLS = 12, 200
SUBMITTERS = 16
_SUBMIT_SLICES, _SLICE_S = 6, 2.0
_WARM_UP = 300
_PATH = "/api/v1/purchase-requests"
_SELLERS = 20
_USUAL = {"carries": 0.6, "max_copies": 1000, "max_batch_size": 100, "calls_per_minute": 100_000}

Call = Callable[[], Awaitable[object]]


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both; tell the part that is done."""
    async with shop({"usual": _USUAL}, {"usual": _SELLERS}) as mesh, buyers(mesh) as there:
        through = await _ways(mesh, there, lambda part: on_progress(part * 0.7))
        submits = await _submits(there, lambda part: on_progress(0.7 + part * 0.3))
    return [*through, submits]


async def _ways(mesh: LocalMesh, there: Buyers, on_progress: OnProgress) -> list[Result]:
    request_id = await there.submit("front-door")
    await there.final(request_id)
    token = f"Bearer {mesh.token('customer-0')}"
    metadata = (("authorization", token),)
    request = pb.GetPurchaseRequestRequest(request_id=request_id)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            # Its own share of each call is about as small as grpc's; that of httpx is several times as large.
            aiohttp.ClientSession(mesh.rest_url, headers={"authorization": token})
        )
        direct = await stack.enter_async_context(
            mesh.connect(mesh.replicas["gateway-1"], "gateway", by="internal")
        )
        envoy = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.grpc_address))
        straight, through = PurchaseServiceStub(direct), PurchaseServiceStub(envoy)

        async def rest() -> None:
            async with client.get(f"{_PATH}/{request_id}") as response:
                response.raise_for_status()
                await response.json()

        ways: list[Call] = [
            rest,
            lambda: through.GetPurchaseRequest(request, metadata=metadata),
            lambda: straight.GetPurchaseRequest(request, metadata=metadata),
        ]
        for way in ways:
            await _p50_us(way, _WARM_UP)
        times: list[list[float]] = [[], [], []]
        for number in range(ROUNDS):
            for turn in range(len(ways)):
                which = (turn + number) % len(ways)
                times[which].append(await _p50_us(ways[which], CALLS))
            on_progress((number + 1) / ROUNDS)
    over_rest, over_grpc, over_nothing = times
    note = "the naive column is gRPC straight to one gateway; p50 of 200 calls, one after the other"
    return [
        Result(
            name=name,
            ours=spread(ours),
            naive=spread(over_nothing),
            ratio=spread([a / b for a, b in zip(ours, over_nothing, strict=True)]),
            unit="us",
            aim=AIM,
            note=note,
        )
        for name, ours in (
            ("GetPurchaseRequest over REST through Envoy", over_rest),
            ("GetPurchaseRequest over gRPC through Envoy", over_grpc),
        )
    ]


async def _p50_us(call: Call, times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


async def _submits(there: Buyers, on_progress: OnProgress) -> Result:
    counted, stopped = 0, False

    async def keep_submitting(number: int) -> None:
        nonlocal counted
        made = 0
        while not stopped:
            await there.submit(f"submitted-{number}-{made % 10}")
            made += 1
            counted += 1

    rates = []
    async with asyncio.TaskGroup() as tasks:
        for number in range(SUBMITTERS):
            tasks.create_task(keep_submitting(number))
        for number in range(_SUBMIT_SLICES):
            before = counted
            await asyncio.sleep(_SLICE_S)
            rates.append((counted - before) / _SLICE_S)
            on_progress((number + 1) / _SUBMIT_SLICES)
        stopped = True
    return Result(
        name=f"submits a second, {SUBMITTERS} at a time, over gRPC through Envoy",
        ours=spread(rates),
        naive=None,
        ratio=None,
        unit="submits a second",
        aim=None,
        note="each answer comes after the commit and the authorization; the purchases go on beside it",
    )
