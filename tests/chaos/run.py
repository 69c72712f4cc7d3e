"""A chaos run: customers buy, the mesh is hit by one fault after the other, and then all books are compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import asyncpg
import httpx

from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions, inherited_environment
from mesh.clock import Clock, SystemClock
from seller_sim.adapters.scenario import load_scenario
from tests.chaos.books import Books, Totals, Violation, audit, totals
from tests.chaos.customers import Shopper, Told
from tests.chaos.faults import Fault, Happened, Planned, Storm
from tests.chaos.reading import read, unquiet
from tests.chaos.wishes import wishes

SCENARIO = Path(__file__).parent / "scenario.yaml"
LEASE_S = 6.0
"""The shortest there is, so that a worker that is stopped loses its purchases soon."""

_ANSWER_WITHIN_S = 8.0
"""Longer than Envoy waits."""

_QUIET_WITHIN_S = 150.0
_TOLD_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is told.

    Attributes:
        seed: decides what is wanted, and what is hit in which order.
        purchases: how many.
        rate: how many are asked for in a second.
        customers: how many ask.
        replicas: of each service.
        faults: the least; there are more while purchases are asked for.
        data: folder of the mesh; must not exist yet.

    """

    seed: int
    purchases: int
    rate: float
    data: Path
    customers: int = 25
    replicas: int = 2
    faults: int = 0


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        doing: what is done now.
        wanted: purchases that will be asked for.
        told: those that were asked for so far.
        faults: made so far, by kind.

    """

    wanted: int
    doing: str = "starting the mesh"
    told: Sequence[Told] = ()
    faults: Counter[Fault] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """How many purchases are final, as their customers know."""
        return sum(told.final_at is not None for told in self.told)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run; times monotonic.

    Attributes:
        books: everybody's books at the end.
        violations: what is wrong in them.
        totals: what was paid, by whose books.
        faults: what was done to the mesh.
        began_at: when the first purchase was asked for.
        calm_at: when the last fault was over and all that was killed was back.
        quiet_at: when nothing was left to do.

    """

    books: Books
    violations: Sequence[Violation]
    totals: Totals
    faults: Sequence[Happened]
    began_at: float
    calm_at: float
    quiet_at: float


@asynccontextmanager
async def stormy_mesh(
    data: Path, scenario: Path, replicas: int, report: Callable[[str], None], **settings: str
) -> AsyncIterator[LocalMesh]:
    """Run a mesh whose processes may call sellers as soon as they are started again.

    Its sellers have no limits to speak of. Else each process would leave them alone for 65 s after its start, and no
    purchase would come far enough to go wrong.
    """
    told = {
        "BOOKMESH_QUIET_START": "true",
        # Shoppers look far more often than customers would.
        "BOOKMESH_EDGE_CUSTOMER_RATE": "10000",
        "BOOKMESH_EDGE_CUSTOMER_BURST": "10000",
        **settings,
    }
    options = MeshOptions(
        data=data,
        http_port=0,
        grpc_port=0,
        scenario=scenario,
        sellers=len(load_scenario(scenario).named),
        replicas=replicas,
        environment=inherited_environment() | told,
    )
    async with LocalMesh(options, report=report) as mesh:
        yield mesh


async def run(
    options: Options,
    faults: Iterable[Planned],
    progress: Progress,
    report: Callable[[str], None] = lambda _line: None,
) -> Outcome:
    """Run it to its end. What is seen on the way stands in ``progress``."""
    clock = SystemClock()
    settings = {"BOOKMESH_LEASE_S": str(LEASE_S)}
    async with (
        stormy_mesh(options.data, SCENARIO, options.replicas, report, **settings) as mesh,
        AsyncExitStack() as stack,
    ):
        shoppers = {
            name: await stack.enter_async_context(shopper(mesh, name, clock))
            for name in (f"customer-{number}" for number in range(options.customers))
        }
        everything = [
            Told(wish) for wish in wishes(options.seed, options.purchases, options.customers)
        ]
        storm = Storm(mesh, faults, LEASE_S, clock)
        progress.told, progress.faults, progress.doing = everything, storm.counts, "storm"
        began_at = clock.monotonic()
        asked = asyncio.Event()
        buying: list[asyncio.Task[None]] = []

        async def count_faults() -> None:
            while True:
                progress.faults = storm.counts
                await clock.sleep(_LOOK_EVERY_S)

        async with asyncio.TaskGroup() as group:
            counting = group.create_task(count_faults())
            raging = group.create_task(storm.rage(asked, options.faults))
            rng = Random(f"arrivals {options.seed}")
            for told in everything:
                buying.append(group.create_task(shoppers[told.wish.customer].buy(told)))
                await clock.sleep(rng.expovariate(options.rate))
            asked.set()
            await raging
            progress.doing = "waiting until all that was killed is back"
            await mesh.wait_healthy()
            calm_at = clock.monotonic()
            progress.doing = "waiting until nothing is left to do"
            await _until_quiet(mesh.dsn, calm_at + _QUIET_WITHIN_S, clock)
            quiet_at = clock.monotonic()
            await asyncio.wait(buying, timeout=_TOLD_WITHIN_S)
            for task in (counting, *buying):
                task.cancel()
        progress.doing = "comparing the books"
        async with asyncio.timeout(_QUIET_WITHIN_S):
            await asyncio.gather(*(shoppers[told.wish.customer].look(told) for told in everything))
        offers = [told.offer for told in everything if told.offer is not None]
        books = await read(mesh, [*everything, *offers])
        return Outcome(
            books, audit(books), totals(books), storm.happened, began_at, calm_at, quiet_at
        )


@asynccontextmanager
async def shopper(mesh: LocalMesh, name: str, clock: Clock) -> AsyncIterator[Shopper]:
    """Let a customer of that name into the mesh."""
    async with httpx.AsyncClient(
        base_url=mesh.rest_url,
        headers={"authorization": f"Bearer {mesh.token(name)}"},
        timeout=_ANSWER_WITHIN_S,
        trust_env=False,
    ) as client:
        yield Shopper(client, clock)


async def _until_quiet(dsn: str, give_up_at: float, clock: Clock) -> None:
    """Return when no purchase has anything left to do, or when that is given up: the audit names those that have."""
    quiet_twice = 0
    while clock.monotonic() < give_up_at:
        try:
            quiet_twice = 0 if await unquiet(dsn) else quiet_twice + 1
        except (OSError, asyncpg.PostgresError):
            quiet_twice = 0
        if quiet_twice > 1:
            return
        await clock.sleep(1.0)
