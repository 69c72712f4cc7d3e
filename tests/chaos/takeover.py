"""How soon the purchases of a worker that is killed go on with another.

A burst of purchases is asked for; a moment later one of the orchestrators is killed with SIGKILL. For each purchase
that was its own it is measured how long after that the next event was committed, by whoever has taken the purchase
over. In that time it was seen to be dead, the purchase was claimed, and one effect was carried out, at the payment
provider or at a seller that takes 150 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg

from deploy.local.mesh import LocalMesh
from mesh.clock import SystemClock
from orchestrator.adapters.postgres import WORKER_LOCK_CLASS
from tests.chaos.customers import Told
from tests.chaos.run import shopper, stormy_mesh
from tests.chaos.wishes import Wish
from tests.e2e.waiting import eventually

SCENARIO = Path(__file__).parent / "takeover.yaml"

_ORCHESTRATORS = ("orchestrator-1", "orchestrator-2")
_BURST = 12
_LATEST_KILL_S = 0.45
_OVER_WITHIN_S = 60.0
_IN_FLIGHT = timedelta(milliseconds=20)
"""What a worker sent just before it died is committed by then: it is no sign of another."""

_OWNED = """
SELECT request_id, owner, epoch FROM orchestrator.purchase
WHERE request_id = ANY ($1) AND owner IS NOT NULL AND due_at IS NOT NULL
"""

_LIVING = """
SELECT objid::integer FROM pg_locks
WHERE locktype = 'advisory' AND classid = $1::integer::oid AND granted
"""

_LEFT = (
    "SELECT count(*) FROM orchestrator.purchase WHERE request_id = ANY ($1) AND due_at IS NOT NULL"
)

_TAKEN_OVER = """
SELECT min(e.happened_at) FROM orchestrator.purchase_event e JOIN orchestrator.purchase p USING (request_id)
WHERE e.request_id = $1 AND p.epoch > $2 AND e.happened_at > $3
"""


@dataclass(frozen=True, slots=True)
class _Owned:
    request_id: UUID
    owner: int
    epoch: int


async def measure(
    data: Path, kills: int, seed: int, on_progress: Callable[[int, int], None]
) -> list[float]:
    """Kill workers; give for each purchase that was taken over how many seconds after the kill it went on.

    ``on_progress`` is told how many kills are done, and how many purchases were taken over.
    """
    rng = Random(f"takeover {seed}")
    taken_s: list[float] = []
    clock = SystemClock()
    async with stormy_mesh(data, SCENARIO, len(_ORCHESTRATORS), lambda _line: None) as mesh:
        connection = await asyncpg.connect(mesh.dsn)
        async with shopper(mesh, "customer", clock) as customer:
            for number in range(kills):
                await _all_work(connection)
                burst = [_told(f"kill-{number}-{place}", rng) for place in range(_BURST)]
                await asyncio.gather(*map(customer.post, burst))
                await clock.sleep(rng.uniform(0, _LATEST_KILL_S))
                request_ids = [
                    UUID(request_id) for told in burst for request_id in told.request_ids
                ]
                taken_s += await _kill(mesh, rng.choice(_ORCHESTRATORS), request_ids, connection)
                on_progress(number + 1, len(taken_s))
        await connection.close()
    return taken_s


async def _kill(
    mesh: LocalMesh,
    name: str,
    request_ids: Sequence[UUID],
    connection: asyncpg.Connection[asyncpg.Record],
) -> list[float]:
    """Kill one worker; give after how many seconds each of these purchases went on that was its own."""
    before = await _living(connection)
    owned = [_Owned(**row) for row in await connection.fetch(_OWNED, request_ids)]
    killed_at = datetime.now(UTC)
    mesh.kill(name)

    async def lost() -> set[int] | None:
        return before - await _living(connection) or None

    async def over() -> bool | None:
        return None if await connection.fetchval(_LEFT, request_ids) else True

    dead = await eventually(lost, _OVER_WITHIN_S)
    await eventually(over, _OVER_WITHIN_S)
    taken_at = [
        await connection.fetchval(_TAKEN_OVER, row.request_id, row.epoch, killed_at + _IN_FLIGHT)
        for row in owned
        if row.owner in dead
    ]
    await mesh.wait_healthy(name)
    return [(at - killed_at).total_seconds() for at in taken_at if at is not None]


async def _all_work(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Return when each orchestrator has a worker: one that was started again answers calls a little earlier."""

    async def work() -> bool | None:
        return len(await _living(connection)) == len(_ORCHESTRATORS) or None

    await eventually(work, _OVER_WITHIN_S)


async def _living(connection: asyncpg.Connection[asyncpg.Record]) -> set[int]:
    """Give the workers that have a session."""
    return {row["objid"] for row in await connection.fetch(_LIVING, WORKER_LOCK_CLASS)}


def percentile(values: Sequence[float], part: float) -> float:
    """Give the least value that at least this part of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * round(part * 100) // 100) - 1)]


def _told(key: str, rng: Random) -> Told:
    body = {
        "book_id": f"book-{rng.randrange(10_000)}",
        "max_price": 500.0,
        "payment_token": "tok_ok",
    }
    return Told(Wish("customer", key, body, 50_000, watches=False))
