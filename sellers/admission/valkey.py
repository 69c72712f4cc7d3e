"""The ledger of the whole fleet: scripts in Valkey, one round trip for any number of sellers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib import resources
from struct import Struct
from typing import Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from mesh.time_limit import answer_within
from sellers.admission.ledger import Report, Request, Rules, Standing, Verdict

# One hash tag: a script needs all its keys on one node.
_LEDGER_KEY = b"{bookmesh:admission}"
_CONNECTIONS = 8

_RULES = Struct("<d5I")
_REQUEST = Struct("<5IBIB")
_VERDICT = Struct("<B6I")
_REPORT = Struct("<3IBI")
_STANDING = Struct("<d8I")


class FleetUnavailable(Exception):
    """Valkey did not answer, or not in time. What was asked may have been done."""


class FleetLedger(Protocol):
    """A ledger that all processes share; what it does is what ``ledger.Ledger`` does.

    Raises:
        FleetUnavailable: from each method.

    """

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        """Answer each request."""
        ...

    async def report(self, reports: Sequence[Report]) -> None:
        """Take note of calls that have ended."""
        ...

    async def standings(self, seller_ids: Sequence[str]) -> list[Standing]:
        """Say what is known of sellers."""
        ...


def script(name: str) -> str:
    """Give the text of a script, with what it shares with the others before it."""
    folder = resources.files("sellers.admission").joinpath("lua")
    return folder.joinpath("ledger.lua").read_text() + folder.joinpath(f"{name}.lua").read_text()


@lru_cache(maxsize=16384)
def _key(seller_id: str) -> bytes:
    return _LEDGER_KEY + b":" + seller_id.encode()


def keys(seller_ids: Iterable[str]) -> list[bytes]:
    """Give the KEYS of a script about these sellers."""
    return [_LEDGER_KEY, *map(_key, seller_ids)]


def pack_rules(rules: Rules, now_ms: int) -> bytes:
    """Write the first argument of every script; ``now_ms`` 0 is Valkey's own time."""
    return _RULES.pack(
        now_ms,
        rules.window_ms,
        rules.warm_up_ms,
        rules.breaker_calls,
        rules.breaker_failure_percent,
        rules.breaker_open_ms,
    )


def pack_requests(requests: Iterable[Request]) -> bytes:
    """Write the second argument of ``admit``."""
    pack = _REQUEST.pack
    return b"".join([pack(*request[1:]) for request in requests])


def pack_reports(reports: Iterable[Report]) -> bytes:
    """Write the second argument of ``report``."""
    pack = _REPORT.pack
    return b"".join([pack(*report[1:]) for report in reports])


def unpack_verdicts(answer: bytes) -> list[Verdict]:
    """Read what ``admit`` returned."""
    return list(map(Verdict._make, _VERDICT.iter_unpack(answer)))


def unpack_standings(answer: bytes) -> list[Standing]:
    """Read what ``standings`` returned."""
    return [
        Standing(int(open_for_ms), *rest) for open_for_ms, *rest in _STANDING.iter_unpack(answer)
    ]


class ValkeyLedger:
    """Implements ``FleetLedger``; see ``valkey_ledger`` for how to make one."""

    def __init__(
        self, client: Redis, rules: Rules, *, timeout_s: float, now_ms: Callable[[], int]
    ) -> None:
        self._client = client
        self._rules = rules
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._admit = client.register_script(script("admit"))
        self._report = client.register_script(script("report"))
        self._standings = client.register_script(script("standings"))
        self._declare_quiet = client.register_script(script("declare_quiet"))

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        """Answer each request."""
        async with self._in_time():
            answer = await self._admit(
                keys=keys([request.seller_id for request in requests]),
                args=(self._head(), pack_requests(requests)),
            )
        return unpack_verdicts(answer)

    async def report(self, reports: Sequence[Report]) -> None:
        """Take note of calls that have ended; never sent twice, so that none is counted twice."""
        async with self._in_time():
            await self._report(
                keys=keys([report.seller_id for report in reports]),
                args=(self._head(), pack_reports(reports)),
            )

    async def standings(self, seller_ids: Sequence[str]) -> list[Standing]:
        """Say what is known of sellers."""
        async with self._in_time():
            answer = await self._standings(keys=keys(seller_ids), args=(self._head(),))
        return unpack_standings(answer)

    async def declare_quiet(self) -> None:
        """Take the caller's word that no process has called any seller for the warm-up: grant from now on.

        For whoever starts a mesh that was not running; of what it knows of sellers Valkey forgets everything.
        """
        async with self._in_time():
            await self._declare_quiet(keys=keys(()), args=(self._head(),))

    def _head(self) -> bytes:
        return pack_rules(self._rules, self._now_ms())

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with answer_within(self._timeout_s):
                yield
        except TimeoutError as error:
            raise FleetUnavailable(f"no answer in {self._timeout_s} s") from error
        except (RedisError, OSError) as error:
            raise FleetUnavailable(str(error)) from error


def _own_time() -> int:
    return 0


@asynccontextmanager
async def valkey_ledger(
    url: str, rules: Rules, *, timeout_s: float, now_ms: Callable[[], int] = _own_time
) -> AsyncIterator[ValkeyLedger]:
    """Open the ledger at the Valkey of this URL, with connections of its own. Nothing is connected before it is used.

    ``now_ms`` passes in the time; only for tests.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=None,
        # Our own time limit covers connecting, waiting for a connection and the answer; and nothing is sent twice.
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    async with Redis.from_pool(pool) as client:
        yield ValkeyLedger(client, rules, timeout_s=timeout_s, now_ms=now_ms)
