"""What sellers can do is asked from time to time, once in the fleet, and taken into the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from random import Random

import asyncpg
import pytest

from aggregator.adapters.capabilities import PostgresCapabilityChecks
from aggregator.adapters.postgres import PostgresSellerStore
from aggregator.app.capabilities import CapabilityKeeper, CapabilitySettings
from aggregator.app.registry import Registry
from mesh import postgres
from mesh.clock import SystemClock
from sellers.admission.model import Outcome
from sellers.model import (
    CallFailed,
    CapabilitiesOutcome,
    FailureKind,
    Seller,
    SellerState,
)
from sellers.registry import Directory
from tests.fakes.admission import OpenAdmission
from tests.fakes.seller import registered

CLOCK = SystemClock()
FAILED = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")


class Sellers:
    """Answers what the test says, after what happens ``meanwhile``."""

    def __init__(self) -> None:
        self.answers: dict[str, CapabilitiesOutcome] = {}
        self.asked: list[str] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def get_capabilities(self, seller: Seller, *, timeout_s: float) -> CapabilitiesOutcome:
        if self.meanwhile is not None:
            await self.meanwhile()
        self.asked.append(seller.seller_id)
        return self.answers[seller.seller_id]


class Replica:
    """One aggregator's keeper over a database that others share."""

    def __init__(self, pool: asyncpg.Pool, sellers: Sellers) -> None:
        self.directory = Directory()
        self.admission = OpenAdmission(CLOCK)
        self.registry = Registry(
            PostgresSellerStore(pool), self.directory, CLOCK, lambda _snapshot: None, poll_s=1
        )
        self.keeper = CapabilityKeeper(
            PostgresCapabilityChecks(pool),
            sellers,
            self.admission,
            self.registry,
            self.directory,
            settings=CapabilitySettings(),
            clock=CLOCK,
            rng=Random(1),
        )


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with await postgres.open_pool(postgres_dsn, max_size=4, application_name="test") as pool:
        yield pool


@pytest.fixture
async def sellers(pool: asyncpg.Pool) -> Sellers:
    """Register three sellers whose turn it is; one of them is disabled."""
    found = Sellers()
    known = [registered(name, f"{name}:1") for name in ("acme", "beta", "gamma")]
    await PostgresSellerStore(pool).put(
        [known[0], known[1], replace(known[2], state=SellerState.DISABLED)]
    )
    await pool.execute(
        "UPDATE aggregator.seller SET capabilities_checked_at = now() - interval '2 hours'"
    )
    for seller in known:
        found.answers[seller.seller_id] = seller.capabilities
    return found


async def test_what_has_changed_is_taken_over_and_a_failure_changes_nothing(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    acme = registered("acme", "acme:1").capabilities
    sellers.answers = {"acme": replace(acme, max_batch_size=77), "beta": FAILED}
    await replica.keeper.check()
    snapshot = replica.directory.snapshot
    assert snapshot is not None
    assert snapshot.sellers["acme"].capabilities.max_batch_size == 77
    assert snapshot.sellers["beta"].capabilities == registered("beta", "beta:1").capabilities
    assert dict(replica.admission.reports) == {"acme": Outcome.SUCCESS, "beta": Outcome.SILENCE}


async def test_each_seller_is_asked_once_in_the_fleet_and_disabled_ones_never(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    replicas = [Replica(pool, sellers) for _ in range(2)]
    for replica in replicas:
        await replica.registry.refresh()
    for replica in [*replicas, *replicas]:
        await replica.keeper.check()
    assert sorted(sellers.asked) == ["acme", "beta"]


async def test_a_seller_that_can_do_less_than_it_must_stays_as_it_is_known(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    acme = registered("acme", "acme:1").capabilities
    sellers.answers["acme"] = replace(acme, supports_get_order=False, honours_not_after=False)
    await replica.keeper.check()
    snapshot = replica.directory.snapshot
    assert snapshot is not None
    assert snapshot.sellers["acme"].capabilities == acme


async def test_a_seller_that_did_not_answer_is_asked_again_much_sooner_than_the_others(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    sellers.answers["beta"] = FAILED
    pauses = []
    for _ in range(9):
        await replica.keeper.check()
        pauses.append(await _turns_in_s(pool, "beta"))
        await pool.execute(
            "UPDATE aggregator.seller SET capabilities_checked_at = now() - interval '2 hours'"
            " WHERE seller_id = 'beta'"
        )
    settings = CapabilitySettings()
    for number, pause_s in enumerate(pauses):
        least_s = min(settings.retry_s * 2**number, settings.longest_retry_s)
        assert least_s - 5 <= pause_s <= least_s * 1.5
    assert sellers.asked.count("acme") == 1
    sellers.answers["beta"] = sellers.answers["acme"]
    await replica.keeper.check()
    assert await _turns_in_s(pool, "beta") > settings.longest_retry_s * 1.5


async def test_what_an_operator_did_while_a_seller_was_asked_stands(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    """Also where this replica has not heard of it yet."""
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    acme = registered("acme", "acme:1").capabilities
    sellers.answers["acme"] = replace(acme, max_batch_size=77)

    async def disable() -> None:
        await PostgresSellerStore(pool).set_state(["acme"], SellerState.DISABLED)

    sellers.meanwhile = disable
    await replica.keeper.check()
    snapshot = replica.directory.snapshot
    assert snapshot is not None
    assert snapshot.sellers["acme"].state is SellerState.DISABLED


async def test_a_seller_that_is_new_or_has_moved_is_asked_at_the_next_look(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    await replica.keeper.check()
    sellers.asked.clear()
    store = PostgresSellerStore(pool)
    new, acme = registered("new", "new:1"), registered("acme", "acme:1")
    sellers.answers["new"] = new.capabilities
    await store.put([new, replace(acme, endpoint="acme:2"), registered("beta", "beta:1")])
    await replica.keeper.check()
    assert sorted(sellers.asked) == ["acme", "new"]
    await store.put([replace(acme, endpoint="acme:2", display_name="Acme Books")])
    await replica.keeper.check()
    assert sorted(sellers.asked) == ["acme", "new"]


async def test_a_seller_that_is_called_too_often_is_asked_at_the_next_look_but_not_at_each(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    await replica.keeper.check()
    for _ in range(3):
        replica.keeper.suspect("acme")
        await replica.keeper.check()
    assert sorted(sellers.asked) == ["acme", "acme", "beta"]


async def test_thousands_whose_turn_it_is_are_asked_in_many_looks_not_in_one(
    pool: asyncpg.Pool, sellers: Sellers
) -> None:
    new = [registered(f"new-{i:03d}", f"new-{i}:1") for i in range(120)]
    await PostgresSellerStore(pool).put(new)
    sellers.answers |= {seller.seller_id: seller.capabilities for seller in new}
    replica = Replica(pool, sellers)
    await replica.registry.refresh()
    await replica.keeper.check()
    assert len(sellers.asked) == CapabilitySettings().least_a_look == 100
    await replica.keeper.check()
    assert len(sellers.asked) == len(set(sellers.asked)) == 122


def test_all_are_asked_in_a_quarter_of_the_time_however_many_they_are() -> None:
    settings = CapabilitySettings()
    looks = settings.every_s / 4 / settings.look_every_s
    assert settings.most_a_look(50) == 100
    assert settings.most_a_look(10_000) == pytest.approx(10_000 / looks, abs=1)


async def _turns_in_s(pool: asyncpg.Pool, seller_id: str) -> float:
    """Say in how many seconds a seller's turn comes again."""
    asked_s: float = await pool.fetchval(
        "SELECT extract(epoch FROM now() - capabilities_checked_at)::float8 FROM aggregator.seller"
        " WHERE seller_id = $1",
        seller_id,
    )
    return CapabilitySettings().every_s - asked_s
