"""Stand-in sellers for measurements: ``python -m bench.standins FIRST COUNT DEAD SCALE``.

Each has an address of its own and answers GetQuote and BatchGetQuotes, with a price, after 20 ms plus an exponential
time of 80 ms on average, both times SCALE; the first DEAD sellers never answer. That time is a function of the seller's
number and the (first) book, so that who asks for the same book waits for the same times. They run in processes of their
own: what they cost is not the asker's. The process prints the sellers' addresses in one line and ends when its standard
input does.
"""

from __future__ import annotations

import asyncio
import math
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh import convert
from mesh.money import Money

PROCESSES = 2
LEAST_LATENCY_S = 0.02
MEAN_FURTHER_LATENCY_S = 0.08
_LIFE_S = 600
_DEAD_S = 3600
_HASHES = 2**32
_SERVICE = "bookmesh.seller.v1.SellerService"


@asynccontextmanager
async def standins(count: int, *, dead: int = 0, scale: int = 1) -> AsyncIterator[list[str]]:
    """Run stand-in sellers, ``scale`` times as slow, of which the first ``dead`` never answer; give their addresses."""
    each = math.ceil(count / PROCESSES)
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.standins"),
            *map(str, (first, min(each, count - first), dead, scale)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for first in range(0, count, each)
    ]
    try:
        addresses = []
        for process in processes:
            line = await process.stdout.readline() if process.stdout is not None else b""
            addresses.extend(line.decode().split())
        if len(addresses) != count:
            raise RuntimeError("a stand-in seller did not start: see what it printed above")
        yield addresses
    finally:
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()


def latency_s(number: int, book_id: str, scale: int = 1) -> float:
    """Give the time that a seller takes to answer about a book."""
    uniform = (zlib.crc32(f"{number}:{book_id}".encode()) + 0.5) / _HASHES
    return scale * (LEAST_LATENCY_S - MEAN_FURTHER_LATENCY_S * math.log(uniform))


async def _serve(first: int, count: int, dead: int, scale: int) -> None:
    servers = [_server(number, scale, dead=number < dead) for number in range(first, first + count)]
    ports = [server.add_insecure_port("127.0.0.1:0") for server in servers]
    for server in servers:
        await server.start()
    print(*(f"127.0.0.1:{port}" for port in ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers:
        await server.stop(None)


def _server(number: int, scale: int, *, dead: bool) -> grpc.aio.Server:
    standin = _StandIn(number, scale, dead=dead)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetQuote": grpc.unary_unary_rpc_method_handler(
            standin.get_quote,
            request_deserializer=pb.GetQuoteRequest.FromString,
            response_serializer=pb.GetQuoteResponse.SerializeToString,
        ),
        "BatchGetQuotes": grpc.unary_unary_rpc_method_handler(
            standin.batch_get_quotes,
            request_deserializer=pb.BatchGetQuotesRequest.FromString,
            response_serializer=pb.BatchGetQuotesResponse.SerializeToString,
        ),
    }
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    return server


class _StandIn:
    """The RPCs of one seller."""

    def __init__(self, number: int, scale: int, *, dead: bool) -> None:
        self._number = number
        self._scale = scale
        self._dead = dead
        self._quote = _quote(number)

    async def get_quote(self, request: pb.GetQuoteRequest, _context: object) -> pb.GetQuoteResponse:
        await self._take_time(request.book_id)
        return self._answer(request)

    async def batch_get_quotes(
        self, request: pb.BatchGetQuotesRequest, _context: object
    ) -> pb.BatchGetQuotesResponse:
        await self._take_time(request.requests[0].book_id)
        return pb.BatchGetQuotesResponse(responses=[self._answer(one) for one in request.requests])

    def _answer(self, request: pb.GetQuoteRequest) -> pb.GetQuoteResponse:
        return pb.GetQuoteResponse(book_id=request.book_id, quote=self._quote)

    async def _take_time(self, book_id: str) -> None:
        await asyncio.sleep(
            _DEAD_S if self._dead else latency_s(self._number, book_id, self._scale)
        )


def _quote(number: int) -> pb.Quote:
    price = Money("USD", 1500 + number)
    shipping = Money("USD", 399)
    return pb.Quote(
        quote_id=f"quote-of-stand-in-{number}",
        price=convert.money_to_proto(price),
        shipping=convert.money_to_proto(shipping),
        total=convert.money_to_proto(Money("USD", price.minor + shipping.minor)),
        condition=pb.CONDITION_NEW,
        quantity=3,
        expires_at=convert.timestamp(datetime.now(UTC) + timedelta(seconds=_LIFE_S)),
        valid_for=convert.duration(_LIFE_S),
    )


if __name__ == "__main__":
    asyncio.run(_serve(*map(int, sys.argv[1:])))
