"""Customers who do everything right: they ask again under the same key, and go on asking until there is an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from mesh.clock import Clock
from tests.chaos.wishes import Wish

PATH = "/api/v1/purchase-requests"

_AGAIN = frozenset({429, 502, 503, 504})
"""HTTP statuses that say: try again."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_LOOK_EVERY_S = 1.0
_SILENCE_S = 15.0

Json = dict[str, Any]


@dataclass(slots=True)
class Told:
    """What a customer was told.

    Attributes:
        wish: what was wanted.
        request_ids: of all answers to the POST; more than one is a double purchase.
        declined: whether the POST was answered with 402.
        cancel: what a cancel was answered: a status, or why not.
        offer: what was told of the purchase that was made of the offer.
        answers: all final answers, in the order in which they came.
        oddities: answers that no customer should ever get.
        tries: calls that were made.
        posted_at, accepted_at, final_at: when, monotonic.

    """

    wish: Wish
    request_ids: set[str] = field(default_factory=set)
    declined: bool = False
    cancel: str | None = None
    offer: Told | None = None
    answers: list[Json] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    tries: int = 0
    posted_at: float = 0.0
    accepted_at: float | None = None
    final_at: float | None = None

    @property
    def request_id(self) -> str | None:
        """The id of the purchase; None if it was never accepted."""
        return min(self.request_ids, default=None)


class Shopper:
    """Buys for one customer, over REST."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def buy(self, told: Told) -> None:
        """Post the wish and stay until the answer is final. What is told so far is in ``told`` also when cancelled."""
        told.posted_at = self._clock.monotonic()
        await asyncio.gather(*(self.post(told) for _ in range(told.wish.posts)))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cancel(told))
            await self._follow(told)
        if told.wish.accepts and told.answers and told.answers[0]["status"] == "price_not_met":
            told.offer = await self._accept(told, told.answers[0])
            await self._follow(told.offer)

    async def look(self, told: Told) -> None:
        """Ask once more for the final answer."""
        if told.request_id is not None and told.answers:
            told.answers.append(await self._ask(told, told.request_id))
        if told.offer is not None:
            await self.look(told.offer)

    async def post(self, told: Told) -> None:
        """Post the wish until it is answered."""
        await self._create(told, PATH, told.wish.body, {"idempotency-key": told.wish.key or ""})

    async def _create(self, told: Told, path: str, body: Json, headers: dict[str, str]) -> None:
        response = await self._persist(
            told, lambda: self._client.post(path, json=body, headers=headers)
        )
        answer = response.json()
        match response.status_code:
            case httpx.codes.ACCEPTED if "request_id" in answer:
                told.request_ids.add(answer["request_id"])
            case httpx.codes.PAYMENT_REQUIRED:
                told.declined = True
                told.request_ids.add(_info(answer)["metadata"]["request_id"])
            case status:
                told.oddities.append(f"POST gave {status}: {response.headers} {response.text}")

    async def _follow(self, told: Told) -> None:
        if told.request_id is None:
            return
        told.accepted_at = self._clock.monotonic()
        follow = self._watch if told.wish.watches else self._ask
        told.answers.append(await follow(told, told.request_id))
        told.final_at = self._clock.monotonic()
        if told.wish.watches:
            told.answers.append(await self._ask(told, told.request_id))

    async def _cancel(self, told: Told) -> None:
        if told.request_id is None or told.wish.cancels_after_s is None:
            return
        await self._clock.sleep(told.wish.cancels_after_s)
        path = f"{PATH}/{told.request_id}:cancel"
        response = await self._persist(told, lambda: self._client.post(path, json={}))
        answer = response.json()
        if response.status_code == httpx.codes.OK:
            told.cancel = answer["status"]
        else:
            told.cancel = _info(answer)["reason"]
            if told.cancel != "CANNOT_CANCEL":
                told.oddities.append(f":cancel gave {response.status_code}: {response.text}")

    async def _accept(self, told: Told, answer: Json) -> Told:
        """Accept an offer, again and again until that is answered: it makes one purchase."""
        max_minor = round(answer["offer"]["price"] * 100)
        wish = Wish(told.wish.customer, None, {}, max_minor, watches=told.wish.watches)
        accepted = Told(wish, posted_at=self._clock.monotonic())
        path = f"{PATH}/{told.request_id}:accept-offer"
        posts = (self._create(accepted, path, {}, {}) for _ in range(told.wish.posts))
        await asyncio.gather(*posts)
        return accepted

    async def _ask(self, told: Told, request_id: str) -> Json:
        """Ask until the answer is final."""
        while True:
            response = await self._persist(told, lambda: self._client.get(f"{PATH}/{request_id}"))
            answer: Json = response.json()
            if response.status_code != httpx.codes.OK:
                told.oddities.append(f"GET gave {response.status_code}: {response.text}")
            elif answer["status"] != "pending":
                return answer
            await self._clock.sleep(_LOOK_EVERY_S)

    async def _watch(self, told: Told, request_id: str) -> Json:
        """Follow the events until the result, opening the stream again for as often as it breaks."""
        events: dict[str, Json] = {}
        while True:
            told.tries += 1
            try:
                async with self._client.stream(
                    "GET",
                    f"{PATH}/{request_id}:watch",
                    timeout=_SILENCE_S,
                ) as response:
                    if response.status_code == httpx.codes.OK:
                        async for line in response.aiter_lines():
                            event = json.loads(line)
                            # The best price is of the quotes that this stream has seen.
                            event.get("collection", {}).pop("best_total", None)
                            before = events.setdefault(event["event_id"], event)
                            if before != event:
                                told.oddities.append(f"the event {before} was told as {event}")
                            if "result" in event:
                                result: Json = event["result"]
                                return result
                    elif response.status_code not in _AGAIN:
                        await response.aread()
                        told.oddities.append(f":watch gave {response.status_code}: {response.text}")
            except (httpx.TransportError, json.JSONDecodeError):
                # A line may be cut off with the stream.
                pass
            except KeyError:
                # An error that ended the stream is its last line.
                pass
            await self._clock.sleep(_LOOK_EVERY_S)

    async def _persist(self, told: Told, call: Callable[[], Any]) -> httpx.Response:
        """Call again while there is no answer or one that says so, later each time."""
        pause_s = _FIRST_PAUSE_S
        while True:
            told.tries += 1
            try:
                response: httpx.Response = await call()
            except httpx.TransportError:
                pass
            else:
                if response.status_code not in _AGAIN:
                    return response
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _info(answer: Json) -> Json:
    """Give the ErrorInfo of an error: its reason, and its metadata."""
    nothing: Json = {"reason": "", "metadata": {}}
    found = (detail for detail in answer["details"] if detail["@type"].endswith("ErrorInfo"))
    return nothing | next(found, {})
