"""The quote cache of the fleet in Valkey, and what the process itself knows in front of it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha1
from importlib import resources
from typing import Any
from urllib.parse import quote

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from aggregator.domain.cached import CacheSettings, KnownAnswers, good_for_s, keep
from aggregator.domain.collection import Answer, Question
from aggregator.domain.packed import frames, good, pack, split, unpack, with_good
from aggregator.ports import Opened
from mesh.cancellation import end_if_cancelled
from mesh.clock import Clock
from mesh.time_limit import answer_within
from sellers.model import Condition

_CHANNEL = "quotes:changed"
_FLUSH_S = 0.01
"""How long what is put gathers before it is written, where somebody follows."""

_QUIET_FLUSH_S = 0.2
"""How long otherwise. A round trip costs more than the answers in it; well below the time that a lead lasts."""

_READ_TIMEOUT_S = 0.25
"""The most that a round trip to open questions may take; as long as admission waits: a busy Valkey is not gone, and a
process that goes on alone asks sellers what others know."""

_OPENED_AT_ONCE = 32
"""Questions in one round trip, so that a crowd of them does not look like a slow Valkey."""

_WRITE_TIMEOUT_S = 1.0
_PAUSE_S = 0.25
"""How often to see whether Valkey is back."""

_WRITTEN_AT_ONCE = 4_000
"""Answers in one round trip, so that no write holds up others' reads for more than some ms."""

_BUFFERED = 50_000
"""The most answers (and questions, as one each) that wait to be written; about 7 MB."""

_SILENCE_S = 1.0
"""After how long without a message to ask whether the subscription is alive; as long again, and it is made anew."""

_DOWN = (RedisError, OSError)
_log = structlog.get_logger(__name__)


def open_client(url: str) -> Redis:
    """Make a client that tries nothing twice: whoever waits has something better to do."""
    return Redis.from_url(
        url,
        socket_connect_timeout=_WRITE_TIMEOUT_S,
        socket_timeout=_WRITE_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class _Script:
    """A Lua script of this package."""

    def __init__(self, name: str) -> None:
        self.text = (
            resources.files("aggregator.adapters").joinpath("lua", f"{name}.lua").read_text()
        )
        # Valkey's name for it, no matter of security.
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_OPEN = _Script("open_question")
_PUT = _Script("put_answers")


@dataclass(frozen=True, slots=True)
class _Call:
    """A script to run for a question."""

    script: _Script
    key: str
    arguments: tuple[str | bytes | int | float, ...]


class ValkeyQuoteCache:
    """Implements ``QuoteCache``; shared while ``run`` runs, by the process itself otherwise.

    Questions that are opened while a round trip is under way go together in the next one. Writes gather for 10 ms where
    somebody follows, for 200 ms otherwise. When Valkey fails or takes too long, no question waits for it until it has
    taken a write of our own, tried every quarter of a second; answers wait in a bounded buffer meanwhile.
    """

    def __init__(
        self,
        client: Redis,
        clock: Clock,
        process_id: str,
        settings: CacheSettings,
        *,
        shared_time_ms: Callable[[], float] | None = None,
    ) -> None:
        """Use a client of ``open_client``.

        ``process_id`` is another one in every process of the fleet, without spaces. ``shared_time_ms`` is for tests:
        Valkey's own time otherwise.
        """
        self._client = client
        self._clock = clock
        self._process_id = process_id
        self._settings = settings
        self._shared_time_ms = shared_time_ms
        self._known = KnownAnswers(settings.known_entries)
        self._leading: Counter[str] = Counter()
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._up = asyncio.Event()
        self._down = asyncio.Event()

        self._asked: list[tuple[_Call, asyncio.Future[tuple[int, bytes] | None]]] = []
        self._asking = asyncio.Event()

        self._pending: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._pending_size = 0
        self._ending: set[str] = set()
        self._dropped = 0
        self._dirty = asyncio.Event()
        self._followed: set[str] = set()
        self._hurry = asyncio.Event()

    async def open(
        self, question: Question, sellers: Collection[str], *, ahead_s: float = 0.0
    ) -> Opened:
        key = _key(question)
        now = self._clock.monotonic()
        fresh_until = now + ahead_s
        known = self._known.of(key)
        missing = [
            seller_id
            for seller_id in sellers
            if (packed := known.get(seller_id)) is None or good(packed) <= fresh_until
        ]
        leading = False
        if missing:
            reply = await self._ask(key, missing, ahead_s)
            leading = reply is None or reply[0] == 1
            if reply is not None:
                # Counted from before the call, so that the way back makes no answer good for longer.
                self._learn(key, reply[1], now)
            known = self._known.of(key)
            now = self._clock.monotonic()
        if leading:
            self._leading[key] += 1
            self._ending.discard(key)
        now_s = self._clock.now().timestamp()
        answers: list[Answer] = []
        good_for: dict[str, float] = {}
        for seller_id in sellers:
            packed = known.get(seller_id)
            if packed is not None and (left_s := good(packed) - now) > 0:
                answers.append(unpack(question, seller_id, packed, now_s))
                good_for[seller_id] = left_s
        return Opened(answers, good_for, leading)

    def put(self, question: Question, answers: Sequence[Answer]) -> None:
        key = _key(question)
        utc, now = self._clock.now(), self._clock.monotonic()
        said_s = utc.timestamp()
        entries = [
            (
                answer.seller_id,
                pack(now + good_for_s(answer.outcome, utc, self._settings), answer.outcome, said_s),
            )
            for answer in answers
            if not answer.cached
        ]
        self._known.put(key, entries)
        self._write_later(key, entries)

    def renew(self, question: Question) -> None:
        key = _key(question)
        if key in self._leading:
            self._write_later(key, ())

    def close(self, question: Question) -> None:
        key = _key(question)
        if key in self._leading:
            self._leading[key] -= 1
            if not self._leading[key]:
                del self._leading[key]
                self._end_lead(key)

    @contextmanager
    def changes(self, question: Question) -> Iterator[asyncio.Event]:
        key = _key(question)
        event = asyncio.Event()
        self._watchers[key].add(event)
        try:
            yield event
        finally:
            self._watchers[key].remove(event)
            if not self._watchers[key]:
                del self._watchers[key]

    async def run(self) -> None:
        """Share with the fleet until cancelled; writes then what still waits, and gives up its leads."""
        self._up.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._write())
                tasks.create_task(self._listen())
                tasks.create_task(self._recover())
        finally:
            in_reach = self._up.is_set()
            self._up.clear()
            self._refuse(self._asked)
            if in_reach:
                self._end_leads()
                await self._flush()
            self._say_dropped()

    # Reading

    async def _ask(
        self, key: str, sellers: Sequence[str], ahead_s: float
    ) -> tuple[int, bytes] | None:
        """Open a question in Valkey; None where it does not answer."""
        if not self._up.is_set():
            return None
        arguments = (
            *self._arguments(),
            ahead_s * 1000,
            self._settings.longest_s * 1000,
            _CHANNEL,
            "\n".join(sellers),
        )
        reply: asyncio.Future[tuple[int, bytes] | None]
        reply = asyncio.get_running_loop().create_future()
        self._asked.append((_Call(_OPEN, key, arguments), reply))
        self._asking.set()
        try:
            return await asyncio.shield(reply)
        except asyncio.CancelledError:
            reply.add_done_callback(partial(self._refuse_lead, key))
            raise

    def _refuse_lead(self, key: str, asked: asyncio.Future[tuple[int, bytes] | None]) -> None:
        """Give back the lead, if it was given, that nobody waited for; others in this process may have it too."""
        reply = asked.result()
        if reply is not None and reply[0] == 1 and key not in self._leading:
            self._end_lead(key)

    async def _read(self) -> None:
        while True:
            end_if_cancelled()
            await self._asking.wait()
            asked = self._asked[:_OPENED_AT_ONCE]
            del self._asked[:_OPENED_AT_ONCE]
            if not self._asked:
                self._asking.clear()
            try:
                replies = await self._call([call for call, _ in asked], _READ_TIMEOUT_S)
            except _DOWN as error:
                self._fail(error)
            else:
                for (_, future), reply in zip(asked, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)
            finally:
                # Those that have no answer; where Valkey is down also those who wait for the next round.
                self._refuse(asked)
                if not self._up.is_set():
                    self._refuse(self._asked)

    def _refuse(self, asked: list[tuple[_Call, asyncio.Future[tuple[int, bytes] | None]]]) -> None:
        for _, future in asked:
            if not future.done():
                future.set_result(None)
        asked.clear()

    def _learn(self, key: str, joined: bytes, since: float) -> None:
        known = self._known.of(key)
        found = []
        for seller_id, packed in split(joined):
            until = since + good(packed) / 1000
            own = known.get(seller_id)
            # What this process has put meanwhile may be newer.
            if own is None or good(own) < until:
                found.append((seller_id, with_good(packed, until)))
        self._known.put(key, found)

    # Writing

    def _write_later(self, key: str, entries: Sequence[tuple[str, bytes]]) -> None:
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = {}
            self._pending_size += 1
        before = len(pending)
        for seller_id, packed in entries:
            keep(pending, seller_id, packed)
        self._pending_size += len(pending) - before
        while self._pending_size > _BUFFERED and len(self._pending) > 1:
            oldest, dropped = self._take()
            # Its lead has ended by itself long since, or will in a moment.
            self._ending.discard(oldest)
            self._dropped += len(dropped)
        self._dirty.set()
        if key in self._followed:
            self._hurry.set()

    def _take(self) -> tuple[str, dict[str, bytes]]:
        key, entries = self._pending.popitem(last=False)
        self._pending_size -= 1 + len(entries)
        return key, entries

    async def _write(self) -> None:
        while True:
            end_if_cancelled()
            await self._dirty.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_FLUSH_S):
                    await self._hurry.wait()
                    await self._clock.sleep(_FLUSH_S)
            await self._up.wait()
            self._dirty.clear()
            self._hurry.clear()
            await self._flush()
            self._say_dropped()

    async def _flush(self) -> None:
        """Write all that waits; where that fails, it waits on."""
        while self._pending:
            taken: dict[str, dict[str, bytes]] = {}
            size = 0
            while self._pending and size < _WRITTEN_AT_ONCE:
                key, entries = self._take()
                taken[key] = entries
                size += len(entries)
            ending = self._ending & taken.keys()
            self._ending -= ending
            now = self._clock.monotonic()
            calls = [
                self._put_call(key, entries, now, ending=key in ending)
                for key, entries in taken.items()
            ]
            written = False
            try:
                followed = await self._call(calls, _WRITE_TIMEOUT_S)
                written = True
            except _DOWN as error:
                self._fail(error)
                return
            finally:
                if not written:
                    self._put_back(taken, ending)
            for key, yes in zip(taken, followed, strict=True):
                if yes and key in self._leading:
                    self._followed.add(key)

    def _put_call(
        self, key: str, entries: Mapping[str, bytes], now: float, *, ending: bool
    ) -> _Call:
        lead = "end" if ending else "renew" if key in self._leading else ""
        joined = frames(
            (seller_id, with_good(packed, left_s * 1000))
            for seller_id, packed in entries.items()
            if (left_s := good(packed) - now) > 0
        )
        return _Call(_PUT, key, (*self._arguments(), lead, _CHANNEL, joined))

    def _put_back(self, taken: Mapping[str, dict[str, bytes]], ending: set[str]) -> None:
        newer, self._pending = self._pending, OrderedDict()
        self._pending_size = 0
        self._ending |= ending - self._leading.keys()
        for key, entries in (*taken.items(), *newer.items()):
            self._write_later(key, list(entries.items()))

    def _end_leads(self) -> None:
        leading = list(self._leading)
        self._leading.clear()
        for key in leading:
            self._end_lead(key)

    def _end_lead(self, key: str) -> None:
        self._ending.add(key)
        self._write_later(key, ())
        self._followed.discard(key)

    def _say_dropped(self) -> None:
        if self._dropped:
            _log.warning(
                "answers were not shared: too many waited for Valkey", answers=self._dropped
            )
            self._dropped = 0

    # Hearing of others

    async def _listen(self) -> None:
        said = False
        while True:
            end_if_cancelled()
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(_CHANNEL)
                    said = False
                    await self._hear(pubsub)
            except _DOWN as error:
                if not said:
                    _log.warning("no wake-ups from other replicas for now", error=str(error))
                    said = True
                await self._clock.sleep(_PAUSE_S)

    async def _hear(self, pubsub: PubSub) -> None:
        """Pass on what others publish until the connection fails."""
        asked = False
        while True:
            end_if_cancelled()
            message = await pubsub.get_message(timeout=_SILENCE_S)
            if message is None:
                if asked:
                    raise TimeoutError("the subscription is silent")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                # Whatever was published before went unheard.
                for events in self._watchers.values():
                    _set(events)
            elif message["type"] == "message":
                process_id, _, key = message["data"].decode().partition(" ")
                if process_id != self._process_id:
                    _set(self._watchers.get(key, ()))
                    if key in self._leading:
                        self._followed.add(key)
                    if key in self._pending:
                        self._hurry.set()

    # Valkey

    def _arguments(self) -> tuple[str | float, ...]:
        """Give the arguments with which both scripts begin."""
        time = "" if self._shared_time_ms is None else self._shared_time_ms()
        return time, self._process_id, round(self._settings.lease_s * 1000)

    async def _call(self, calls: Sequence[_Call], timeout_s: float) -> list[Any]:
        """Run scripts in one round trip, in two where Valkey does not know them yet."""
        async with answer_within(timeout_s):
            replies = await self._pipelined(calls)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                for script in (_OPEN, _PUT):
                    await self._client.script_load(script.text)
                # Those that ran already do no harm by running again.
                replies = await self._pipelined(calls)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    async def _pipelined(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(call.script.sha, 2, call.key, f"{call.key}:lead", *call.arguments)
            return await pipeline.execute(raise_on_error=False)

    def _fail(self, error: Exception) -> None:
        if self._up.is_set():
            _log.warning(
                "Valkey does not answer: this process goes on with the quotes it knows itself",
                error=str(error) or type(error).__name__,
            )
        self._up.clear()
        self._down.set()

    async def _recover(self) -> None:
        """Try Valkey while it is down, so that no question has to."""
        while True:
            end_if_cancelled()
            await self._down.wait()
            await self._clock.sleep(_PAUSE_S)
            try:
                async with answer_within(_READ_TIMEOUT_S):
                    # A write: a replica, or a server that is full or loading, is of no use.
                    await self._client.set(f"quotes:probe:{self._process_id}", "", px=1000)
            except _DOWN:
                continue
            self._down.clear()
            self._up.set()
            _log.info("Valkey answers again: quotes are shared")


def _set(events: Collection[asyncio.Event]) -> None:
    for event in events:
        event.set()


@lru_cache(maxsize=4096)
def _key(question: Question) -> str:
    """Give the key of a question's answers: its book, in braces that keep what belongs together on one node."""
    return (
        f"quotes2:{{{quote(question.book_id, safe='')}}}"
        f":{question.currency}:{_words(question.conditions)}"
    )


@lru_cache(maxsize=64)
def _words(conditions: frozenset[Condition]) -> str:
    return "+".join(sorted(conditions))
