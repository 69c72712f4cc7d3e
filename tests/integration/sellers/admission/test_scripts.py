"""The scripts against their twin, at random; in a fleet; and where only a real Valkey can fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest
import redis
import structlog

from bench.virtual_time import run_virtually
from deploy.local import valkey
from deploy.local.child import Child
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.ports import Ports
from mesh.clock import SystemClock
from sellers.admission.admission import rules_of
from sellers.admission.ledger import Code, Ending, Ledger, Report, Request, Verdict
from sellers.admission.model import AdmissionSettings
from sellers.admission.valkey import FleetUnavailable, ValkeyLedger, valkey_ledger
from tests.fakes.ledgers import AnyLedger, LuaLedger
from tests.fakes.selling_fleet import Plan, SellingFleet

RULES = rules_of(AdmissionSettings())
START = 1_700_000_000_000
MANY = 2**31 - 1
ASK = Request("seller", 5, 0, MANY, MANY, 1000, past_breaker=False)


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


_ENDINGS = (
    Ending.SUCCESS,
    Ending.FAILURE,
    Ending.FAILURE,
    Ending.NOT_SENT,
    Ending.EXCUSED,
)
_ASKS_FOR_PEACE = 0.05


class _Script:
    """Random requests and reports, the same for whoever runs them."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._granted: list[tuple[Request, Verdict]] = []

    def requests(self) -> list[Request]:
        rng = self._rng
        return [
            Request(
                rng.choice("ab"),
                calls_cap=rng.choice([5, 20]),
                books=rng.choice([0, 1, 7]),
                books_cap=rng.choice([MANY, 30]),
                concurrency=rng.choice([2, 8]),
                hold_ms=rng.choice([500, 2250, 5000]),
                past_breaker=rng.random() < 0.2,
                reserve=rng.choice([0, 2, 4]),
                reserved=rng.random() < 0.3,
            )
            for _ in range(rng.randint(0, 3))
        ]

    def granted(self, requests: list[Request], verdicts: list[Verdict]) -> None:
        for request, verdict in zip(requests, verdicts, strict=True):
            if verdict.code == Code.ALLOWED:
                self._granted.append((request, verdict))

    def reports(self) -> list[Report]:
        rng = self._rng
        reports = []
        for _ in range(min(rng.randint(1, 3), len(self._granted))):
            request, verdict = self._granted.pop(rng.randrange(len(self._granted)))
            ends_second = verdict.ends_second if rng.random() < 0.8 else 0
            ending = rng.choice(_ENDINGS)
            reports.append(
                Report(request.seller_id, ends_second, request.books, verdict.probe, ending)
            )
        if rng.random() < _ASKS_FOR_PEACE:
            alone_ms = rng.choice([1, 2000, 40_000])
            reports.append(Report(rng.choice("ab"), 0, 0, 0, Ending.LEAVE_ALONE, alone_ms))
        return reports

    def later(self) -> int:
        rng = self._rng
        if rng.random() < 0.005:
            return rng.choice([-500, -70_000])
        return rng.choice([0, 1, 7, 100, 400, 1000, 1500, 5000, rng.choice([3, 20_000])])

    def next(self) -> str:
        return self._rng.choices(["admit", "report", "standings", "quiet"], [50, 40, 10, 0.5])[0]


@pytest.mark.parametrize("seed", range(12))
def test_scripts_and_twin_say_the_same(client: redis.Redis, seed: int) -> None:
    twin, scripts, script, now_ms = Ledger(RULES), LuaLedger(client, RULES), _Script(seed), START
    both: tuple[AnyLedger, AnyLedger] = (twin, scripts)
    for ledger in both:
        ledger.declare_quiet(now_ms)
    for _ in range(300):
        now_ms += script.later()
        match script.next():
            case "admit":
                requests = script.requests()
                verdicts, expected = (ledger.admit(now_ms, requests) for ledger in both)
                assert verdicts == expected
                script.granted(requests, verdicts)
            case "report":
                reports = script.reports()
                for ledger in both:
                    ledger.report(now_ms, reports)
            case "standings":
                standings, expected_standings = (ledger.standings(now_ms, "abc") for ledger in both)
                assert standings == expected_standings
            case _:
                for ledger in both:
                    ledger.declare_quiet(now_ms)


@pytest.mark.parametrize("seed", range(4))
def test_no_minute_sees_more_than_the_limit(client: redis.Redis, seed: int) -> None:
    """As with the twin, in tests/unit, here with the scripts; a restart without memory is a flush."""

    def fresh() -> LuaLedger:
        client.flushall()
        return LuaLedger(client, RULES)

    plan = Plan(seed=seed, calls=12, books=25, failing=0.3, faults=5)
    calls, books = run_virtually(SellingFleet(plan, fresh).run()).most_in_a_minute()
    assert 0 < calls <= plan.calls
    assert 0 < books <= plan.books


@asynccontextmanager
async def opened(url: str, timeout_s: float = 5.0) -> AsyncIterator[ValkeyLedger]:
    async with valkey_ledger(url, RULES, timeout_s=timeout_s) as ledger:
        yield ledger


async def admitted(ledger: ValkeyLedger) -> list[Verdict]:
    """Ask until there is an answer: on a slow machine none may come in time at first."""
    while True:
        with suppress(FleetUnavailable):
            return await ledger.admit([ASK._replace(calls_cap=1000)])


async def test_the_fleets_ledger_goes_by_the_time_of_valkey(valkey_url: str) -> None:
    async with opened(valkey_url) as ledger:
        [verdict] = await ledger.admit([ASK])
        assert (verdict.code, verdict.after_ms) == (Code.WARMING_UP, 65_001)
        await ledger.declare_quiet()
        [verdict] = await ledger.admit([ASK])
        assert verdict.code == Code.ALLOWED
        await ledger.report(
            [Report("seller", verdict.ends_second, 0, verdict.probe, Ending.SUCCESS)]
        )
        [standing] = await ledger.standings(["seller"])
        assert (standing.calls_used, standing.in_flight, standing.judged) == (1, 0, 1)
        with redis.Redis.from_url(valkey_url) as client:
            seconds, _ = client.time()
        assert 0 <= seconds + 1 - verdict.ends_second <= 60


async def test_many_at_once_find_connections(valkey_url: str) -> None:
    async with opened(valkey_url) as ledger:
        await ledger.declare_quiet()
        answers = await asyncio.gather(*(ledger.admit([ASK]) for _ in range(300)))
    assert sum(verdict.code == Code.ALLOWED for [verdict] in answers) == 5


async def test_scripts_that_valkey_has_lost_are_loaded_again(
    valkey_url: str, client: redis.Redis
) -> None:
    async with opened(valkey_url) as ledger:
        await ledger.declare_quiet()
        await ledger.admit([ASK])
        client.script_flush()
        [verdict] = await ledger.admit([ASK])
        assert verdict.calls_used == 2


async def test_nobody_there_is_unavailable() -> None:
    async with opened(f"redis://{HOST}:1/0") as ledger:
        with pytest.raises(FleetUnavailable):
            await ledger.admit([ASK])


class OwnValkey:
    """A Valkey that a test may kill."""

    def __init__(self, child: Child, port: int) -> None:
        self._child = child
        self.url = f"redis://{HOST}:{port}/0"

    def send(self, number: signal.Signals) -> None:
        self._child.signal(number)

    async def restart(self, number: signal.Signals) -> None:
        keeping = asyncio.create_task(self._child.keep_alive())
        self.send(number)
        await self._child.wait_healthy()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[OwnValkey]:
    data = DataFolder(tmp_path)
    data.prepare()
    with Ports(data.ports) as ports:
        port = ports.take(valkey.NAME)
        child = Child(valkey.program(data, port, os.environ), SystemClock(), report=print)
        await child.start()
        try:
            yield OwnValkey(child, port)
        finally:
            await child.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_after_a_restart_nothing_is_granted_whatever_was_saved(
    own_valkey: OwnValkey, how: signal.Signals
) -> None:
    """A snapshot may be older than the last calls, so a ledger that was loaded is no memory."""
    async with opened(own_valkey.url) as ledger:
        await ledger.declare_quiet()
        [verdict] = await ledger.admit([ASK])
        assert verdict.code == Code.ALLOWED
        with redis.Redis.from_url(own_valkey.url) as client:
            client.save()
        await own_valkey.restart(how)
    async with opened(own_valkey.url) as ledger:
        [verdict] = await ledger.admit([ASK])
        assert verdict.code == Code.WARMING_UP
        assert 0 < verdict.after_ms <= 65_001
        with redis.Redis.from_url(own_valkey.url) as client:
            assert client.exists("{bookmesh:admission}:seller")


async def test_a_valkey_that_hangs_is_unavailable_and_is_back_when_it_goes_on(
    own_valkey: OwnValkey,
) -> None:
    async with (
        opened(own_valkey.url) as patient,
        opened(own_valkey.url, timeout_s=1.0) as ledger,
    ):
        await patient.declare_quiet()
        own_valkey.send(signal.SIGSTOP)
        try:
            with pytest.raises(FleetUnavailable, match=r"no answer in 1\.0 s"):
                await ledger.admit([ASK])
        finally:
            own_valkey.send(signal.SIGCONT)
        await patient.standings(["seller"])
        [verdict] = await admitted(ledger)
        assert verdict.code == Code.ALLOWED
        # What was asked in vain may have been granted, to nobody: that costs a slot, not the rule.
        assert verdict.calls_used >= 1


async def test_an_answer_that_lies_there_is_read_however_long_our_own_loop_was_blocked(
    valkey_url: str,
) -> None:
    async with opened(valkey_url) as ledger:
        await ledger.declare_quiet()
    async with opened(valkey_url, timeout_s=0.5) as ledger:
        [before] = await admitted(ledger)
        asking = asyncio.create_task(ledger.admit([ASK]))
        await asyncio.sleep(0)
        # Blocks the loop until the time is over, and the answer is there.
        with redis.Redis.from_url(valkey_url) as client:
            client.blpop("nothing", timeout=1.0)
        [verdict] = await asking
        assert verdict.calls_used == before.calls_used + 1
