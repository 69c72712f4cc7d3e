"""The orchestrator's use cases and worker over real PostgreSQL and the sandbox provider, with scripted sellers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TypedDict, Unpack
from uuid import UUID

import asyncpg
import pytest

from mesh import postgres
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.adapters.records import PostgresPurchaseRecords
from orchestrator.adapters.sandbox import SandboxPaymentProvider
from orchestrator.adapters.vault import AesTokenVault
from orchestrator.app.operators import Operators
from orchestrator.app.purchases import Order, Purchases
from orchestrator.app.signals import Signals
from orchestrator.app.steps import Steps
from orchestrator.app.watch import Watch
from orchestrator.app.worker import Worker, WorkerSettings
from orchestrator.domain.events import AnswerBatch
from orchestrator.domain.purchase import Status
from orchestrator.domain.saga import Limits, Saga
from orchestrator.ports import PurchaseView, RecordedBatch
from sellers.model import Condition
from tests.fakes.market import Market, ScriptedSeller

CLOCK = SystemClock()
PATIENT = Limits(
    authorize_by_s=80.0,
    collect_by_s=100.0,
    hold_by_s=140.0,
    order_by_s=170.0,
    pending_until_s=200.0,
    not_after_s=50.0,
)
"""Ten times what a customer waits, so that no purchase ends because the machine stands still."""


@dataclass
class LocalBroadcast:
    """A broadcast within one process."""

    signals: Signals
    kept: dict[UUID, list[RecordedBatch]] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    async def changed(self, request_id: UUID) -> None:
        """Wake those who watch."""
        self.signals.changed(request_id)

    async def work(self) -> None:
        """Wake nobody: workers poll."""

    async def cancel(self, request_id: UUID) -> None:
        """Tell the workers of this process."""
        for worker in self.workers:
            worker.cancel(request_id)

    async def add_batch(self, request_id: UUID, after_seq: int, batch: AnswerBatch) -> None:
        """Keep answers."""
        entries = self.kept.setdefault(request_id, [])
        entries.append(RecordedBatch(after_seq, f"{len(entries) + 1:06}", CLOCK.now(), batch))

    async def batches(self, request_id: UUID, after: str | None) -> list[RecordedBatch]:
        """Give what was kept."""
        return [b for b in self.kept.get(request_id, []) if after is None or b.entry_id > after]


class Changes(TypedDict, total=False):
    """What a test may want otherwise in an order."""

    customer_id: str
    idempotency_key: str
    book_id: str
    max_price: Money
    payment_token: str


class World:
    """Everything of one test."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record], vault: AesTokenVault) -> None:
        self.pool = pool
        self.vault = vault
        self.signals = Signals()
        self.broadcast = LocalBroadcast(self.signals)
        self.store = PostgresPurchaseStore(pool, dsn)
        self.provider = SandboxPaymentProvider(pool, CLOCK, uuid7_factory(CLOCK, Random(7)))
        self.market = Market()
        self.limits = PATIENT
        self.worker_settings = WorkerSettings(poll_s=0.02, lease_s=6.0)
        self.new_id = uuid7_factory(CLOCK, Random())
        self.purchases = self.new_purchases()
        self.records = PostgresPurchaseRecords(pool)
        self.operators = Operators(
            self.store, self.records, self.broadcast, wake_worker=lambda: True
        )
        self.watch = Watch(self.purchases, self.store, self.broadcast, self.signals)

    def new_purchases(self) -> Purchases:
        """Make the use cases over this world, as its provider is now."""
        return Purchases(
            self.store,
            self.vault,
            self.broadcast,
            self.signals,
            clock=CLOCK,
            wake_worker=lambda: True,
            reusable_tokens=self.provider.reusable_tokens,
        )

    def worker(self) -> Worker:
        """Make a worker over this world."""
        saga = Saga(
            self.limits,
            lambda seller_id: self.market.kind_of(seller_id),  # noqa: PLW0108  tests swap markets
            reusable_tokens=self.provider.reusable_tokens,
        )
        steps = Steps(
            saga,
            quotes=self.market,
            sellers=self.market,
            provider=self.provider,
            vault=self.vault,
            broadcast=self.broadcast,
            clock=CLOCK,
            collect_by_s=self.limits.collect_by_s,
        )
        worker = Worker(
            self.store,
            self.broadcast,
            steps,
            saga,
            settings=self.worker_settings,
            clock=CLOCK,
            rng=Random(1),
        )
        self.broadcast.workers.append(worker)
        return worker

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """Run a worker meanwhile."""
        worker = self.worker()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker.run())
            try:
                yield worker
            finally:
                await worker.drain()

    def order(self, **changes: Unpack[Changes]) -> Order:
        """Make an order for a book at up to 29.99."""
        order = Order(
            request_id=self.new_id(),
            customer_id="alice",
            idempotency_key=None,
            book_id="9780134685991",
            max_price=Money("USD", 2999),
            payment_token="tok_abc123",
            conditions=(Condition.NEW,),
        )
        return replace(order, **changes)

    async def buy(
        self, *sellers: ScriptedSeller, silent: int = 0, **changes: Unpack[Changes]
    ) -> PurchaseView:
        """Buy from these sellers and give the final state, after everything is settled and audited."""
        self.market = Market(*sellers, silent=silent)
        async with self.working():
            view = await self.purchases.submit(self.order(**changes), 2)
            return await self.settled(view.request_id)

    async def settled(self, request_id: UUID, customer_id: str = "alice") -> PurchaseView:
        """Wait until nothing is left to do, audit, and give the purchase."""

        async def over() -> bool:
            stage = await self.stage(request_id)
            return stage in {"done", "flagged", "offer"}

        await until(over)
        await self.audit(request_id)
        view = await self.store.get(request_id, customer_id)
        assert view is not None
        return view

    async def stage(self, request_id: UUID) -> str:
        """Give the stage of a purchase."""
        stage: str = await self.pool.fetchval(
            "SELECT stage FROM orchestrator.purchase WHERE request_id = $1", request_id
        )
        return stage

    async def audit(self, request_id: UUID) -> None:
        """Assert what must be true of a purchase that is over and not flagged, against both ledgers."""
        row = await self.pool.fetchrow(
            "SELECT p.*, m.state AS payment_state, m.captured_minor, m.authorized_minor"
            " FROM orchestrator.purchase p JOIN orchestrator.payment m USING (request_id) WHERE request_id = $1",
            request_id,
        )
        assert row is not None
        ledger = await self.pool.fetch(
            "SELECT * FROM sandbox_provider.payment_authorization WHERE reference = $1",
            str(request_id),
        )
        assert len(ledger) <= 1
        assert (row["token_sealed"] is not None) == (row["stage"] == "offer"), (
            "the payment token is erased once it is not needed"
        )
        flags = await self.pool.fetchval(
            "SELECT count(*) FROM orchestrator.flag WHERE request_id = $1 AND resolved_at IS NULL",
            request_id,
        )
        news = await self.pool.fetch(
            "SELECT kind FROM orchestrator.outbox WHERE request_id = $1", request_id
        )
        assert [entry["kind"] for entry in news].count("final") == (row["status"] != "pending")
        if row["stage"] == "flagged":
            assert flags, "what waits for an operator has an open flag"
            return
        assert not flags
        live = self.market.live_orders()
        if row["status"] == "purchased":
            assert len(live) == 1
            assert ledger[0]["state"] == "captured"
            assert ledger[0]["captures"] == 1
            assert ledger[0]["captured_minor"] == row["captured_minor"] == live[0][1].minor
            assert row["captured_minor"] <= row["authorized_minor"] == row["max_price_minor"]
        else:
            assert row["status"] != "pending"
            assert live == []
            assert all(entry["state"] == "voided" for entry in ledger)
        assert self.market.live_holds() == []
        seqs = await self.pool.fetch(
            "SELECT seq FROM orchestrator.purchase_event WHERE request_id = $1 ORDER BY seq",
            request_id,
        )
        assert [entry["seq"] for entry in seqs] == list(range(1, len(seqs) + 1))

    async def reached(self, request_id: UUID, stage: str) -> None:
        """Wait until a purchase is in a stage and no worker has it."""

        async def is_there() -> bool:
            return bool(
                await self.pool.fetchval(
                    "SELECT stage = $2 AND owner IS NULL FROM orchestrator.purchase WHERE request_id = $1",
                    request_id,
                    stage,
                )
            )

        await until(is_there)

    async def steps(self, request_id: UUID) -> list[str]:
        """Give the words of what happened, in order."""
        rows = await self.pool.fetch(
            "SELECT kind, body FROM orchestrator.purchase_event WHERE request_id = $1 ORDER BY seq",
            request_id,
        )
        words = []
        for row in rows:
            body = json.loads(row["body"])
            who = f" {body['seller_id']}" if "seller_id" in body else ""
            words.append(f"{body['name']}{who}" if row["kind"] == "step" else row["kind"])
        return words


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition; the test's timeout is the limit."""
    while not await condition():  # noqa: ASYNC110  it may be another process that makes it true
        await asyncio.sleep(0.01)


@pytest.fixture
def vault(tmp_path: Path) -> AesTokenVault:
    """Give a vault with one key."""
    keyring = tmp_path / "keyring.json"
    key = base64.b64encode(bytes(range(32))).decode()
    keyring.write_text(json.dumps({"keys": [{"id": "k1", "key": key}]}))
    return AesTokenVault(keyring, CLOCK)


@pytest.fixture
async def world(postgres_dsn: str, vault: AesTokenVault) -> AsyncIterator[World]:
    """Give a world with nothing in it yet."""
    pool = await postgres.open_pool(postgres_dsn, max_size=10, application_name="tests")
    async with pool:
        yield World(postgres_dsn, pool, vault)


def final(view: PurchaseView) -> tuple[Status, str | None, int | None]:
    """Give the status, the seller and the price in cents."""
    return view.status, view.seller_id, view.final_price.minor if view.final_price else None
