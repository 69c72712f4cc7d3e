"""What the edge refuses because it is too much, in the one form of errors, and that it serves others meanwhile."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import AsyncExitStack

import grpc
import httpx
import pytest
import pytest_asyncio

from bookmesh.customer.v1 import customer_pb2, customer_pb2_grpc
from mesh import errors
from mesh.grpc.errors import from_rpc
from tests.e2e import hostile
from tests.e2e.waiting import eventually
from tests.integration.envoy.conftest import PATH, Edge, MakeEdge
from tests.integration.envoy.test_rest import BODY, reason

pytestmark = pytest.mark.asyncio(loop_scope="module")

BURST = 3
STREAMS = 3
RETRY_IN_A_SECOND = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(make_edge: MakeEdge) -> Edge:
    """Give an edge at which a customer may send three requests, and one a second after that."""
    return await make_edge(edge_customer_rate=1, edge_customer_burst=BURST)


def client(edge: Edge, customer: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {edge.token(customer)}"}
    return httpx.AsyncClient(base_url=edge.rest_url, headers=headers, trust_env=False)


async def first_refused(customer: httpx.AsyncClient) -> httpx.Response:
    for _ in range(20 * BURST):
        response = await customer.get(f"{PATH}/r1")
        if response.status_code != httpx.codes.OK:
            return response
    pytest.fail("a customer may send as much as he likes")


async def test_a_customer_who_sends_too_much_is_told_when_to_come_back(strict: Edge) -> None:
    async with client(strict, "hasty") as hasty, client(strict, "patient") as patient:
        refused = await first_refused(hasty)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/json"
        assert (refused.json()["code"], reason(refused)) == (8, "RATE_LIMITED")
        assert RETRY_IN_A_SECOND in refused.json()["details"]
        # Another token of the same customer changes nothing; another customer is not concerned.
        assert (await patient.get(f"{PATH}/r1")).status_code == 200


async def test_over_grpc_it_is_resource_exhausted_with_the_same_details(strict: Edge) -> None:
    metadata = (("authorization", f"Bearer {strict.token('hasty-too')}"),)
    request = customer_pb2.GetPurchaseRequestRequest(request_id="r1")
    async with grpc.aio.insecure_channel(strict.grpc_address) as channel:
        stub = customer_pb2_grpc.PurchaseServiceStub(channel)
        calls = [stub.GetPurchaseRequest(request, metadata=metadata) for _ in range(20 * BURST)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    # They arrive in any order, and whoever comes a second later may be served again.
    refused = next(answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError))
    error = from_rpc(refused)
    assert isinstance(error, errors.ResourceExhausted)
    assert (error.reason, error.retry_after_s) == ("RATE_LIMITED", 1.0)
    assert error.message == refused.details()


async def test_an_address_that_sends_too_much_is_refused_whatever_its_tokens(
    make_edge: MakeEdge,
) -> None:
    edge = await make_edge(edge_address_rate=1, edge_address_burst=BURST)
    async with httpx.AsyncClient(base_url=edge.rest_url, trust_env=False) as nobody:
        codes = [(await nobody.get(f"{PATH}/r1")).status_code for _ in range(20 * BURST)]
    assert codes[0] == 401
    assert 429 in codes


async def test_a_path_may_be_2048_bytes_long(envoy: Edge) -> None:
    longest = f"{PATH}?page_token="
    async with envoy.client() as customer:
        taken = await customer.get(longest.ljust(2048, "a"))
        refused = await customer.get(longest.ljust(2049, "a"))
    assert taken.status_code == 200
    assert (refused.status_code, reason(refused)) == (414, "PATH_TOO_LONG")


async def test_compressed_bodies_are_not_taken(envoy: Edge) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    async with envoy.client() as customer:
        for encoding in ("gzip", "br", "deflate"):
            refused = await customer.post(
                PATH, content=bomb, headers={"content-encoding": encoding}
            )
            assert (refused.status_code, reason(refused)) == (415, "CONTENT_ENCODING_UNSUPPORTED")
        assert (await customer.post(PATH, json=BODY)).status_code == 202


async def test_compressed_messages_are_not_taken(envoy: Edge) -> None:
    before = len(envoy.calls)
    metadata = (("authorization", f"Bearer {envoy.token()}"),)
    request = customer_pb2.GetPurchaseRequestRequest(request_id="r" * 1000)
    async with grpc.aio.insecure_channel(
        envoy.grpc_address, compression=grpc.Compression.Gzip
    ) as channel:
        stub = customer_pb2_grpc.PurchaseServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetPurchaseRequest(request, metadata=metadata)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "identity" in (refused.value.details() or "")
    assert len(envoy.calls) == before


@pytest.mark.parametrize(
    "headers",
    [{f"x-{number}": "a" for number in range(70)}, {"x-large": "a" * 20_000}],
    ids=["many", "large"],
)
async def test_too_many_or_too_large_headers_are_refused(
    envoy: Edge, headers: dict[str, str]
) -> None:
    async with envoy.client() as customer:
        refused = await customer.get(f"{PATH}/r1", headers=headers)
        assert refused.status_code == 431
        assert (await customer.get(f"{PATH}/r1")).status_code == 200


@pytest.mark.parametrize("way", ["watch", "events"])
async def test_beyond_so_many_streams_there_is_none_but_calls_go_on(
    make_edge: MakeEdge, way: str
) -> None:
    """A stream more than there may be is answered at once: 503, and when to come back."""
    edge = await make_edge(edge_streams=STREAMS)
    metadata = (("authorization", f"Bearer {edge.token()}"),)
    async with edge.client() as customer, grpc.aio.insecure_channel(edge.grpc_address) as channel:
        stub = customer_pb2_grpc.PurchaseServiceStub(channel)
        async with AsyncExitStack() as opened:
            for _ in range(STREAMS):
                stream = customer.stream("GET", f"{PATH}/r1:{way}", timeout=None)
                assert (await opened.enter_async_context(stream)).status_code == 200
            refused = await customer.get(f"{PATH}/r1:{way}")
            assert (refused.status_code, reason(refused)) == (503, "UNAVAILABLE")
            assert refused.headers["retry-after"] == "1"
            request = customer_pb2.WatchPurchaseRequestRequest(request_id="r1")
            with pytest.raises(grpc.aio.AioRpcError) as over_grpc:
                await stub.WatchPurchaseRequest(request, metadata=metadata, timeout=10).read()
            told = from_rpc(over_grpc.value)
            assert isinstance(told, errors.Unavailable)
            assert (told.reason, told.retry_after_s) == ("UNAVAILABLE", 1.0)
            assert told.message == over_grpc.value.details()
            assert (await customer.get(f"{PATH}/r1")).status_code == 200
            edge.go_on.set()

        async def there_is_room() -> bool | None:
            async with customer.stream("GET", f"{PATH}/r1:{way}", timeout=None) as again:
                return again.status_code == httpx.codes.OK or None

        # Those that have ended make room, once the edge has heard of it.
        assert await eventually(there_is_room, 20)


async def test_beyond_so_many_connections_new_ones_are_closed_until_others_end(
    make_edge: MakeEdge,
) -> None:
    edge = await make_edge(edge_connections=STREAMS)
    door = edge.rest_url.removeprefix("http://")

    async def taken() -> bool | None:
        async with hostile.connected(door) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: bookmesh\r\nconnection: close\r\n\r\n")
            try:
                return await reader.read() != b"" or None
            except ConnectionError:
                return None

    async with AsyncExitStack() as opened:
        for _ in range(STREAMS):
            reader, writer = await opened.enter_async_context(hostile.connected(door))
            writer.write(b"GET / HTTP/1.1\r\nhost: bookmesh\r\n\r\n")
            assert b" 401 " in await reader.readuntil(b"\r\n")
        assert await taken() is None
    assert await eventually(taken, 20)
