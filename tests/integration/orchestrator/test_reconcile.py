"""Three ways over real books: PostgreSQL, the sandbox provider's ledger, simulated sellers behind real gRPC."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import click
import pytest

from bookmesh.aggregator.v1 import aggregator_pb2
from cli import reconcile
from mesh import postgres
from mesh.money import Money
from mesh.settings import SellerCallerSettings
from orchestrator.adapters.reconciliation import PostgresReconciliation
from orchestrator.adapters.sellers import TransportSellers
from orchestrator.adapters.vault import AesTokenVault
from orchestrator.app.reconcile.compare import Comparer
from orchestrator.app.reconcile.model import Comparison, Mode, ReconcileSettings, Verdict
from orchestrator.app.reconcile.runs import Reconciliation
from orchestrator.app.reconcile.settle import Settler
from orchestrator.app.steps import Steps
from orchestrator.app.worker import Worker, WorkerSettings
from orchestrator.domain.events import AnswerBatch, Collected
from orchestrator.domain.purchase import Candidate, Purchase, Status
from orchestrator.domain.saga import Saga
from orchestrator.ports import Authorized, Gathered
from seller_sim.__main__ import simulating
from seller_sim.app import Simulation
from seller_sim.convert import seller_to_proto
from seller_sim.domain.catalogue import Condition as SimCondition
from seller_sim.domain.records import Cancelled, Confirmed, OrderRecord
from seller_sim.settings import Settings as SimulatorSettings
from sellers.admission.opening import open_admission
from sellers.credentials import Credentials
from sellers.registration import from_proto
from sellers.registry import Directory
from sellers.transport import SellerTransport
from tests.integration.orchestrator.conftest import CLOCK, World, until

STATEMENTS = sorted(postgres.statements("orchestrator.adapters.reconciliation"))
SCENARIO = """
seed: 1
defaults:
  latency_constant_ms: 0
  latency_exponential_ms: 0
  carries: 1.0
  in_stock: 1.0
sellers:
  - {id: holds, display_name: A seller with holds}
  - id: atomic
    display_name: A seller without holds
    behaviour: {supports_holds: false}
books:
  - {isbn: "9780134685991", title: Effective Java, author: Joshua Bloch, base_price: 15.00, carried: 1, copies: 90}
"""
LONG_AGO = datetime.now(UTC) - timedelta(hours=3)
BOOKS = """
SELECT
    (SELECT jsonb_agg(to_jsonb(p) ORDER BY p.request_id) FROM orchestrator.purchase p),
    (SELECT jsonb_agg(to_jsonb(m) ORDER BY m.request_id) FROM orchestrator.payment m),
    (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.request_id, a.number) FROM orchestrator.attempt a),
    (SELECT jsonb_agg(to_jsonb(e) ORDER BY e.request_id, e.seq) FROM orchestrator.purchase_event e),
    (SELECT count(*) FROM orchestrator.observation),
    (SELECT count(*) FROM orchestrator.flag),
    (SELECT count(*) FROM orchestrator.outbox),
    (SELECT jsonb_agg(to_jsonb(s) ORDER BY s.authorization_id) FROM sandbox_provider.payment_authorization s),
    (SELECT count(*) FROM sandbox_provider.idempotency_key)
"""


class Trade(World):
    """A world whose sellers are simulated, and a reconciler of its books."""

    dsn: str
    simulation: Simulation
    sellers: TransportSellers

    def worker(self) -> Worker:
        """Make a worker that buys from the simulated sellers."""
        saga = Saga(self.limits, self.sellers.kind_of)
        steps = Steps(
            saga,
            quotes=self,
            sellers=self.sellers,
            provider=self.provider,
            vault=self.vault,
            broadcast=self.broadcast,
            clock=CLOCK,
            collect_by_s=self.limits.collect_by_s,
        )
        settings = WorkerSettings(poll_s=0.02, lease_s=6.0)
        return Worker(
            self.store, self.broadcast, steps, saga, settings=settings, clock=CLOCK, rng=Random(1)
        )

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        """Ask each seller for its price."""
        ids = self.sellers.ids()
        answers = [await self.sellers.requote(purchase, seller_id) for seller_id in ids]
        candidates = tuple(answer for answer in answers if isinstance(answer, Candidate))
        number = len(ids)
        summary = Collected("c", number, number, number, len(candidates), (), CLOCK.now(), 0.1)
        return Gathered(candidates, summary)

    async def bought(self, **how: Any) -> UUID:  # noqa: ANN401  as World.order
        """Have a customer buy a book, or try to, three hours ago."""
        async with self.working():
            order = replace(self.order(**how), request_id=old_id())
            view = await self.purchases.submit(order, 2)

            async def over() -> bool:
                return await self.stage(view.request_id) in {"done", "flagged"}

            await until(over)
        await self.age(view.request_id)
        return view.request_id

    async def age(self, request_id: UUID) -> None:
        """Let a purchase be three hours old, in all books."""
        for table, column in (
            ("orchestrator.purchase", "created_at"),
            ("orchestrator.attempt", "begun_at"),
        ):
            await self.pool.execute(
                f"UPDATE {table} SET {column} = {column} - interval '3 hours' WHERE request_id = $1",
                request_id,
            )
        await self.pool.execute(
            "UPDATE sandbox_provider.payment_authorization SET created_at = created_at - interval '3 hours'"
            " WHERE reference = $1",
            str(request_id),
        )
        for seller in self.simulation.sellers.values():
            for key, order in seller.account.orders.items():
                if order.buyer_reference == str(request_id):
                    then = order.updated_us - 3 * 3600 * 1_000_000
                    seller.account.orders[key] = replace(order, updated_us=then, created_us=then)

    def order_of(self, request_id: UUID) -> tuple[str, OrderRecord]:
        """Give the order that stands for a purchase, and whose it is."""
        [found] = [
            (seller.seller_id, order)
            for seller in self.simulation.sellers.values()
            for order in seller.account.orders.values()
            if order.buyer_reference == str(request_id) and isinstance(order.state, Confirmed)
        ]
        return found

    def put(self, seller_id: str, order: OrderRecord) -> None:
        """Write an order into a seller's books by hand."""
        self.simulation.sellers[seller_id].account.orders[order.key] = order

    def plant_order(self, seller_id: str, key: str, reference: str) -> None:
        """Have a seller sell something that we know nothing of."""
        sold = Confirmed("BK-STRAY", Money("USD", 1234))
        then = int(LONG_AGO.timestamp() * 1_000_000)
        self.put(
            seller_id,
            OrderRecord(key, b"", reference, "b", SimCondition.NEW, sold, sold, then, then),
        )

    async def plant_payment(self, reference: UUID | str) -> str:
        """Have the provider reserve something that we know nothing of."""
        outcome = await self.provider.authorize(
            f"{reference}:authorize", "tok_x", Money("USD", 2999), str(reference), LONG_AGO
        )
        assert isinstance(outcome, Authorized)
        await self.sandbox(str(reference), "created_at = created_at - interval '3 hours'")
        return outcome.provider_id

    async def sandbox(self, reference: UUID | str, change: str) -> None:
        """Change a payment in the provider's books by hand."""
        await self.pool.execute(
            f"UPDATE sandbox_provider.payment_authorization SET {change} WHERE reference = $1",
            str(reference),
        )

    async def all_books(self) -> tuple[object, ...]:
        """Give everything that must not change when nothing is to be changed."""
        ours = await self.pool.fetchrow(BOOKS)
        theirs = [
            sorted(seller.account.orders.items(), key=lambda entry: entry[0])
            for seller in self.simulation.sellers.values()
        ]
        return tuple(ours or ()), theirs

    def reconciliation(self, every_s: float = 0.0) -> Reconciliation:
        """Make what each process of the fleet runs."""
        books = PostgresReconciliation(self.pool, self.dsn)
        settings = ReconcileSettings(workers_s=40.0, tries=1)
        comparer = Comparer(books, self.provider, self.sellers, settings=settings, clock=CLOCK)
        settler = Settler(
            comparer,
            books,
            self.store,
            provider=self.provider,
            sellers=self.sellers,
            broadcast=self.broadcast,
            settings=settings,
            clock=CLOCK,
        )
        return Reconciliation(
            books,
            comparer,
            settler,
            name="test",
            every_s=every_s,
            ready=lambda: True,
            clock=CLOCK,
            rng=Random(1),
        )

    async def command(self, *arguments: str) -> tuple[int | None, dict[str, Any]]:
        """Run ``bookmesh reconcile`` beside an orchestrator; give its exit code and what it printed."""
        code, printed = await self.printed("reconcile", "-o", "json", *arguments)
        return code, json.loads(printed)

    async def printed(self, *arguments: str) -> tuple[int | None, str]:
        """Run the ``bookmesh`` command beside an orchestrator."""
        job = asyncio.create_task(self.reconciliation().run())
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cli.main", *arguments, "--database-url", self.dsn),
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await process.communicate()
            return process.returncode, printed.decode()
        finally:
            job.cancel()
            await asyncio.wait([job])


def old_id() -> UUID:
    """Give a request id as it was made three hours ago."""
    return UUID(
        int=int(LONG_AGO.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | Random().getrandbits(61)
    )


@pytest.fixture
async def trade(
    postgres_dsn: str, valkey_url: str, vault: AesTokenVault, tmp_path: Path
) -> AsyncIterator[Trade]:
    pool = await postgres.open_pool(postgres_dsn, max_size=10, application_name="tests")
    async with (
        pool,
        trading(Trade(postgres_dsn, pool, vault), postgres_dsn, valkey_url, tmp_path) as trade,
    ):
        yield trade


@asynccontextmanager
async def trading(trade: Trade, dsn: str, valkey_url: str, folder: Path) -> AsyncIterator[Trade]:
    """Run the simulated sellers, and what reaches them."""
    scenario = folder / "scenario.yaml"
    scenario.write_text(SCENARIO)
    data = folder / "sellers"
    settings = SellerCallerSettings(
        valkey_url=valkey_url, seller_credentials_file=data / "credentials.json", quiet_start=True
    )
    directory = Directory()
    async with (
        simulating(
            SimulatorSettings(scenario_file=scenario, data_dir=data, seller_drain_s=0), CLOCK
        ) as simulation,
        SellerTransport(Credentials(settings.seller_credentials_file, CLOCK), CLOCK) as transport,
        open_admission(settings, directory, CLOCK) as admission,
    ):
        simulated = [
            seller_to_proto(seller, simulation.endpoint_of(seller))
            for seller in simulation.sellers.values()
        ]
        directory.replace(
            [
                from_proto(
                    aggregator_pb2.Seller(
                        seller_id=seller.seller_id,
                        endpoint=seller.endpoint,
                        credential_reference=seller.credential_reference,
                        capabilities=seller.capabilities,
                    )
                )
                for seller in simulated
            ],
            1,
        )
        trade.dsn, trade.simulation = dsn, simulation
        trade.sellers = TransportSellers(directory, transport, admission, CLOCK)
        reporting = asyncio.create_task(admission.run())
        yield trade
        reporting.cancel()
        await asyncio.wait([reporting])


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_statement_fits_the_schema(world: World, statement: str) -> None:
    async with world.pool.acquire() as connection:
        await connection.prepare(
            postgres.statements("orchestrator.adapters.reconciliation")[statement]
        )


async def test_books_that_agree(trade: Trade) -> None:
    await trade.bought()
    await trade.bought(max_price=Money("USD", 100))
    await trade.bought(payment_token="tok_decline")
    code, found = await trade.command()
    assert (code, found["outcome"], found["findings"]) == (0, "clean", [])
    assert found["compared"] == {"purchases": 3, "payments": 2, "orders": 1, "sellers": 2}
    assert found["not_compared"] == []


async def test_each_planted_difference_is_found_and_put_right_or_listed(trade: Trade) -> None:  # noqa: PLR0915  a plant each
    lost = await trade.bought()
    await trade.sandbox(lost, "state = 'authorized', captured_minor = 0")
    reserved = await trade.bought(max_price=Money("USD", 100))
    await trade.sandbox(reserved, "state = 'authorized'")
    charged = await trade.bought(max_price=Money("USD", 100))
    await trade.sandbox(charged, "state = 'captured', captured_minor = 100")
    dearer = await trade.bought()
    await trade.sandbox(dearer, "captured_minor = captured_minor + 7")
    unknown = await trade.bought()
    await trade.pool.execute(
        "DELETE FROM sandbox_provider.payment_authorization WHERE reference = $1", str(unknown)
    )
    cancelled = await trade.bought()
    seller_id, order = trade.order_of(cancelled)
    trade.put(seller_id, replace(order, state=Cancelled("", order.updated_us)))
    missing = await trade.bought()
    seller_id, order = trade.order_of(missing)
    del trade.simulation.sellers[seller_id].account.orders[order.key]
    other = await trade.bought()
    seller_id, order = trade.order_of(other)
    trade.put(seller_id, replace(order, state=Confirmed("BK", Money("USD", 1))))
    nothing = await trade.bought(payment_token="tok_decline")
    trade.plant_order("holds", f"{nothing}:holds", str(nothing))
    stray = old_id()
    trade.plant_order("atomic", f"{stray}:atomic", str(stray))
    await trade.plant_payment(stray)
    paid = old_id()
    provider_id = await trade.plant_payment(paid)
    await trade.provider.capture(f"{paid}:capture", provider_id, Money("USD", 2999))
    trade.plant_order("atomic", f"{paid}:atomic", str(paid))
    trade.plant_order("atomic", "shop-17", "somebody")
    await trade.plant_payment("shop-17")

    before = await trade.all_books()
    code, found = await trade.command()
    assert (code, found["outcome"]) == (1, "findings")
    seen = [(f["kind"], f["request_id"]) for f in found["findings"]]
    assert sorted(seen, key=str) == sorted(
        [
            ("captured_here_only", str(lost)),
            ("authorization_left", str(reserved)),
            ("captured_there_only", str(charged)),
            ("other_amount_captured", str(dearer)),
            ("payment_missing", str(unknown)),
            ("order_cancelled", str(cancelled)),
            ("order_missing", str(missing)),
            ("other_amount_ordered", str(other)),
            ("stray_order", str(nothing)),
            ("stray_order", str(stray)),
            ("stray_authorization", str(stray)),
            ("stray_capture", str(paid)),
            ("stray_order", str(paid)),
            ("unknown_order", None),
            ("stray_authorization", None),
        ],
        key=str,
    )
    assert {f["done"] for f in found["findings"]} == {"left"}
    assert await trade.all_books() == before, "without --apply nothing changes"

    async with trade.working():
        code, found = await trade.command("--apply")
    assert code == 1
    done = {(f["kind"], f["request_id"]): (f["done"], f["note"]) for f in found["findings"]}
    resolved = [what for what, (how, _) in done.items() if how == "resolved"]
    assert sorted(resolved, key=str) == sorted(
        [
            ("order_cancelled", str(cancelled)),
            ("stray_order", str(nothing)),
            ("stray_order", str(stray)),
            ("stray_authorization", str(stray)),
        ],
        key=str,
    )
    assert done["stray_order", str(paid)][1].startswith("the provider has charged for it")
    assert done["stray_authorization", None] == ("left", "")
    flagged = {f["request_id"] for f in found["findings"] if f["kind"] == "open_flag"}
    assert flagged == {str(r) for r in (lost, reserved, charged, unknown, missing)}

    code, found = await trade.command()
    assert code == 1
    left = {(f["kind"], f["request_id"]) for f in found["findings"]}
    assert left == {what for what in done if what not in resolved}, "what was put right agrees"
    view = await trade.store.get(cancelled, "alice")
    assert view is not None
    assert view.status is Status.PURCHASED, "final is final"
    assert view.refunded == view.final_price


async def test_a_stuck_purchase_is_listed_until_a_worker_takes_it(trade: Trade) -> None:
    view = await trade.purchases.submit(trade.order(), 0)
    await trade.pool.execute(
        "UPDATE orchestrator.purchase SET created_at = now() - interval '10 minutes',"
        " due_at = now() - interval '10 minutes'"
    )
    code, found = await trade.command()
    assert code == 1
    [finding] = found["findings"]
    assert (finding["kind"], finding["request_id"]) == ("overdue", str(view.request_id))


async def test_young_purchases_are_left_alone(trade: Trade) -> None:
    request_id = await trade.bought()
    await trade.pool.execute("UPDATE orchestrator.purchase SET created_at = now()")
    await trade.sandbox(request_id, "state = 'voided'")
    code, found = await trade.command()
    assert (code, found["findings"], found["compared"]["purchases"]) == (0, [], 0)


async def test_a_seller_that_does_not_answer_makes_the_run_partial_and_never_wrong(
    trade: Trade,
) -> None:
    request_id = await trade.bought()
    seller_id, _ = trade.order_of(request_id)
    await trade.simulation.change_behaviour([seller_id], {"dead": True})
    code, found = await trade.command()
    assert (code, found["outcome"], found["findings"]) == (2, "partial", [])
    assert [gap["who"] for gap in found["not_compared"]] == [seller_id]


async def test_calls_of_reconciling_count_against_a_sellers_budget(trade: Trade) -> None:
    await trade.command()
    for seller in trade.simulation.sellers.values():
        assert seller.traffic.calls == {"ListOrders": 1}


async def test_the_table_says_what_it_is_about(trade: Trade) -> None:
    request_id = await trade.bought()
    await trade.sandbox(request_id, "captured_minor = captured_minor + 7")
    code, printed = await trade.printed("reconcile")
    assert code == 1
    for word in ("other amount captured", str(request_id), "$0.07", "3 h"):
        assert word in printed
    assert "Nothing was changed" in printed


async def test_a_scheduled_run_tells_workers_but_takes_nothing_back(trade: Trade) -> None:
    cancelled = await trade.bought()
    seller_id, order = trade.order_of(cancelled)
    trade.put(seller_id, replace(order, state=Cancelled("", order.updated_us)))
    stray = old_id()
    trade.plant_order("atomic", f"{stray}:atomic", str(stray))
    async with trade.working():
        await trade.reconciliation(every_s=900).turn()
    rows = await trade.pool.fetch(
        "SELECT f.kind, f.done FROM orchestrator.reconciliation_finding f"
        " JOIN orchestrator.reconciliation_run r USING (run_id) WHERE r.requested_by = 'schedule' ORDER BY f.kind"
    )
    assert [tuple(row) for row in rows] == [
        ("order_cancelled", "resolved"),
        ("stray_order", "left"),
    ]
    assert isinstance(
        trade.simulation.sellers["atomic"].account.orders[f"{stray}:atomic"].state, Confirmed
    )


async def test_the_schedule_goes_back_eight_days_once_a_day_and_overlaps_else(trade: Trade) -> None:
    await trade.reconciliation(every_s=900).turn()
    assert await _runs(trade) == [], "there is nothing to compare yet"
    await trade.bought()
    await trade.reconciliation(every_s=900).turn()
    assert await _runs(trade) == [("schedule", "clean", timedelta(days=8))]
    await trade.reconciliation(every_s=900).turn()
    assert len(await _runs(trade)) == 1, "it is not time"
    await trade.pool.execute(
        "UPDATE orchestrator.reconciliation_run SET requested_at = requested_at - interval '15 minutes',"
        " since = since - interval '15 minutes', until = until - interval '15 minutes'"
    )
    await trade.reconciliation(every_s=900).turn()
    [_, (_, _, span)] = await _runs(trade)
    assert timedelta(hours=1, minutes=15) <= span < timedelta(hours=1, minutes=16)


async def _runs(trade: Trade) -> list[tuple[str, str, timedelta]]:
    rows = await trade.pool.fetch(
        "SELECT requested_by, outcome, until - since FROM orchestrator.reconciliation_run ORDER BY requested_at"
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def test_one_process_of_the_fleet_at_a_time(trade: Trade) -> None:
    books = PostgresReconciliation(trade.pool, trade.dsn)
    await trade.bought()
    async with books.turn() as mine, books.turn() as others:
        assert (mine, others) == (True, False)
        await trade.reconciliation(every_s=900).turn()
        assert await _runs(trade) == []
    async with books.turn() as mine:
        assert mine


async def test_a_run_that_was_cut_off_is_begun_again_and_ends_once(trade: Trade) -> None:
    books = PostgresReconciliation(trade.pool, trade.dsn)
    await trade.bought()
    cut_off = await books.begin("dead", 900)
    assert cut_off is not None
    await trade.reconciliation().turn()
    [row] = await trade.pool.fetch(
        "SELECT starts, begun_by, outcome FROM orchestrator.reconciliation_run"
    )
    assert tuple(row) == (2, "test", "clean")


async def test_a_run_that_never_ends_is_given_up(trade: Trade) -> None:
    await trade.bought()
    books = PostgresReconciliation(trade.pool, trade.dsn)
    for _ in range(3):
        assert await books.begin("dead", 900) is not None
    await trade.reconciliation().turn()
    [(_, outcome, _)] = await _runs(trade)
    assert outcome == "failed"
    assert not await books.wanted(900), "others are not held up by it"


async def test_a_run_that_was_begun_again_does_not_end_twice(trade: Trade) -> None:
    await trade.bought()
    books = PostgresReconciliation(trade.pool, trade.dsn)
    first = await books.begin("stalled", 900)
    again = await books.begin("other", 900)
    assert first is not None
    assert again is not None
    assert await books.end(again, Verdict.CLEAN, Comparison())
    assert not await books.end(first, Verdict.FINDINGS, Comparison())


async def test_what_is_owed_by_day(trade: Trade) -> None:
    amounts: dict[str, int] = {}
    bought = [await trade.bought() for _ in range(3)]
    for request_id in bought:
        seller_id, order = trade.order_of(request_id)
        assert isinstance(order.state, Confirmed)
        amounts[seller_id] = amounts.get(seller_id, 0) + order.state.total.minor
    await trade.bought(max_price=Money("USD", 100))
    back, order = trade.order_of(bought[0])
    trade.put(back, replace(order, state=Cancelled("", order.updated_us)))
    assert isinstance(order.state, Confirmed)
    # Ordered yesterday, given back today.
    await trade.pool.execute(
        "UPDATE orchestrator.purchase_event SET happened_at = happened_at - interval '1 day'"
    )
    async with trade.working():
        await trade.command("--apply")
    today = datetime.now(UTC).date()
    rows = await trade.pool.fetch(
        "SELECT day, seller_id, owed_minor FROM orchestrator.payable ORDER BY day, seller_id"
    )
    yesterday = today - timedelta(days=1)
    assert [tuple(row) for row in rows] == [
        *((yesterday, seller_id, minor) for seller_id, minor in sorted(amounts.items())),
        (today, back, -order.state.total.minor),
    ]
    _, printed = await trade.printed("payables", "--day", today.isoformat(), "-o", "json")
    [line] = json.loads(printed)
    assert (line["orders"], line["taken_back_orders"], line["owed"]) == (
        0,
        1,
        str(Money("USD", -order.state.total.minor).decimal()),
    )


async def test_the_day_of_payables_is_looked_up_in_its_index(trade: Trade) -> None:
    await trade.pool.execute("SET enable_seqscan = off")
    async with trade.pool.acquire() as connection:
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN SELECT * FROM orchestrator.payable WHERE day = current_date"
        )
    assert "purchase_event_of_money" in "\n".join(row[0] for row in plan)


async def test_what_is_too_young_to_be_compared_is_not_asked_for(trade: Trade) -> None:
    books = PostgresReconciliation(trade.pool, trade.dsn)
    with pytest.raises(ValueError, match="more than 5 minutes ago"):
        await books.request(trade.new_id(), "me", Mode.REPORT, datetime.now(UTC))


@pytest.mark.parametrize("begun", ["nothing", "this", "another"])
async def test_a_command_says_so_when_nobody_compares(
    trade: Trade, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    """All orchestrators are gone, some in the middle of a comparison, which would go on with the next."""
    monkeypatch.setattr(reconcile, "_UNATTENDED_S", 0.5)
    await trade.bought()
    books = PostgresReconciliation(trade.pool, trade.dsn)
    if begun == "another":
        assert await books.begin("dead", 900) is not None
    asked = asyncio.create_task(
        reconcile._compare(Mode.REPORT, LONG_AGO, trade.dsn, Path("nowhere"))
    )
    if begun == "this":

        async def is_asked_for() -> bool:
            return asked.done() or len(await _runs(trade)) == 1

        await until(is_asked_for)
        await books.begin("dead", 0)
    with pytest.raises(click.ClickException, match="no orchestrator has been comparing") as caught:
        await asked
    assert caught.value.exit_code == reconcile.NOT_COMPARED


async def test_a_command_that_is_given_up_leaves_nothing_to_be_done_later(trade: Trade) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "reconcile", "--apply", "--database-url", trade.dsn),
        stderr=asyncio.subprocess.PIPE,
    )

    async def asked() -> bool:
        return len(await _runs(trade)) == 1

    await until(asked)
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert await _runs(trade) == []
