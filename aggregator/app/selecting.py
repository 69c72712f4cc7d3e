"""Whom to ask for a book where there are too many sellers to ask all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from aggregator.app.gather import Gatherer
from aggregator.app.lots import Waiting
from aggregator.app.market import Market, answers_of
from aggregator.domain.collection import Answer, Coverage, MissReason, Question, Skipped
from aggregator.domain.history import CollectionRecord
from aggregator.selection.columns import Floats
from aggregator.selection.selection import Selection, Session
from mesh.clock import Clock
from mesh.ids import NewId
from mesh.money import Money
from sellers.admission.model import Purpose
from sellers.model import Seller
from sellers.registry import Snapshot

OnEnded: TypeAlias = Callable[[CollectionRecord], None]

ANY_PRICE = 2**31 - 1
"""For those to whom any quote will do."""

_WINDOW_S = 60.0
_LEFT_ALONE_S = 10.0
"""How long a seller is not chosen of which the last thing known is that it may not be called."""

_CHECKED_AT_ONCE = 100
"""So many of those who were not chosen are asked at once, for a collection that is checked."""

_CHECKED_EVERY_S = 1.0
"""How soon after them the next so many are. Ten thousand sellers take 100 s: those who buy hardly feel it, and most
prices last longer."""

_CHECK_S = 5.0
"""How long each has."""

_MAY_NOT = frozenset(
    {
        MissReason.CIRCUIT_OPEN,
        MissReason.NO_BUDGET,
        MissReason.BUSY,
        MissReason.NO_CREDENTIAL,
    }
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whom to ask next, and until when, in seconds after the start of the collection."""

    sellers: Sequence[Seller]
    until_s: float


class Selector:
    """Chooses among the sellers of a snapshot, where there are more than ``above``."""

    def __init__(
        self,
        market: Market,
        selection: Selection,
        category_of: Callable[[str], str],
        clock: Clock,
        *,
        above: int,
        currency: str,
    ) -> None:
        """Choose by what a market knows; of other currencies than ``currency`` no prices are known."""
        self._market = market
        self._selection = selection
        self._category_of = category_of
        self._clock = clock
        self._above = above
        self._currency = currency
        self._sellers: dict[int, Seller] = {}
        self._limits: Floats = np.ones(0, np.float32)
        self._calls: Floats = np.zeros(0, np.float32)
        self._counted_at_s = clock.monotonic()
        self._alone_until_s: NDArray[np.float64] = np.zeros(0)
        self._sells_in: dict[str, NDArray[np.bool_]] = {}
        # One at a time: what it costs sellers and us is bounded, whatever is going on.
        self._to_check: asyncio.Queue[tuple[Question, Choice]] = asyncio.Queue(1)

    @property
    def selects(self) -> bool:
        """Whether there are too many sellers to ask all."""
        return len(self._sellers) > self._above

    def on_change(self, snapshot: Snapshot) -> None:
        """Choose among the sellers of this snapshot from now on."""
        rows = self._market.rows
        self._market.know(snapshot.sellers)
        self._sellers = {rows[seller.seller_id]: seller for seller in snapshot.active}
        more = len(rows) - len(self._calls)
        self._calls = np.concatenate([self._calls, np.zeros(more, np.float32)])
        self._alone_until_s = np.concatenate([self._alone_until_s, np.zeros(more)])
        self._limits = np.ones(len(rows), np.float32)
        for row, seller in self._sellers.items():
            self._limits[row] = seller.capabilities.calls_per_minute
        self._sells_in.clear()

    def record(self, record: CollectionRecord) -> None:
        """Learn from a collection that has ended, if what is learned is of use."""
        if self.selects:
            self._market.record(record)

    async def begin(self, question: Question) -> Choice:
        """Begin to choose for a collection, with what is remembered of its book."""
        book_id = question.book_id
        if question.currency != self._currency:
            book_id = f"{question.currency} {book_id}"
        await self._market.recall(book_id)
        session = self._selection.begin(
            book_id,
            self._category_of(question.book_id),
            self._clock.now().timestamp(),
            self._sellers_in(question.currency),
        )
        return Choice(self, session, question.currency)

    def choose(self, session: Session) -> list[Seller]:
        """Give those of the next phase of a session, and count that they are called."""
        now = self._clock.monotonic()
        self._calls *= np.float32(np.exp((self._counted_at_s - now) / _WINDOW_S))
        self._counted_at_s = now
        budget = np.clip(np.float32(1.0) - self._calls / self._limits, 0.0, 1.0)
        rows = session.next_phase(self._alone_until_s <= now, budget)
        self._calls[rows] += np.float32(1.0)
        return [self._sellers[row] for row in rows.tolist() if row in self._sellers]

    def answers(self, given: Sequence[Answer], session: Session) -> None:
        """Tell a session what was answered, and note who may not be called."""
        rows = self._market.rows
        until_s = self._clock.monotonic() + _LEFT_ALONE_S
        for answer in given:
            outcome = answer.outcome
            if isinstance(outcome, Skipped) and outcome.reason in _MAY_NOT:
                self._alone_until_s[rows[answer.seller_id]] = until_s
        session.answered(answers_of(given, rows))

    def check(self, question: Question, choice: Choice) -> None:
        """Have what was said of coverage in a collection that is over checked, now and then. Returns at once."""
        if self._selection.is_full(choice.session.coverage().chance_cheaper):
            with suppress(asyncio.QueueFull):
                self._to_check.put_nowait((question, choice))

    async def run(self, gatherer: Gatherer, new_id: NewId, on_ended: OnEnded) -> None:
        """Ask those who were not chosen, where nobody waits for them, until cancelled.

        They are asked as for browsing, so that it takes nothing from those who buy, and learned from. Those who were
        asked at the same time are told to ``on_ended`` as a collection.
        """
        while True:
            question, choice = await self._to_check.get()
            parts = await self._ask_rest(gatherer, question, choice.session)
            answers = [answer for _, given in parts for answer in given]
            self.checked(answers, choice.session)
            self.record(_record(new_id(), question, self._clock.now(), answers))
            for asked_at, given in parts:
                on_ended(_record(new_id(), question, asked_at, given))
            with suppress(asyncio.QueueEmpty):
                # What was said so long ago is not held against prices of now.
                self._to_check.get_nowait()

    async def _ask_rest(
        self, gatherer: Gatherer, question: Question, session: Session
    ) -> list[tuple[datetime, list[Answer]]]:
        """Ask all who were not chosen and may be called, some at a time; give when, and what they answered."""
        sellers = self._rest(session)
        parts: list[tuple[datetime, list[Answer]]] = []
        left, ended = len(sellers), asyncio.Event()

        def on_answer(answer: Answer, answers: list[Answer]) -> None:
            nonlocal left
            answers.append(answer)
            left -= 1
            if not left:
                ended.set()

        waiting: list[Waiting] = []
        for begin in range(0, len(sellers), _CHECKED_AT_ONCE):
            if begin:
                await self._clock.sleep(_CHECKED_EVERY_S)
            answers: list[Answer] = []
            parts.append((self._clock.now(), answers))
            until_s = self._clock.monotonic() + _CHECK_S
            waiting += [
                gatherer.ask(
                    seller,
                    question,
                    customer_id="",
                    until_s=until_s,
                    on_answer=partial(on_answer, answers=answers),
                    purpose=Purpose.BROWSE,
                )
                for seller in sellers[begin : begin + _CHECKED_AT_ONCE]
            ]
        with suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_S if sellers else 0):
                await ended.wait()
        gatherer.cancel([one for one in waiting if one.on_answer is not None])
        return parts

    def _rest(self, session: Session) -> list[Seller]:
        """Give those who were not chosen in a session, and may be called now."""
        rows = session.rest(self._alone_until_s <= self._clock.monotonic()).tolist()
        return [self._sellers[row] for row in rows if row in self._sellers]

    def checked(self, given: Sequence[Answer], session: Session) -> None:
        """Learn how true a statement was from what the others have answered; from nothing, if hardly any has."""
        said = [answer for answer in given if answer.answered]
        if len(said) > len(given) / 2:
            session.rest_answered(answers_of(said, self._market.rows))

    def _sellers_in(self, currency: str) -> NDArray[np.bool_]:
        """Say of each row whether its seller sells in a currency."""
        found = self._sells_in.get(currency)
        if found is None:
            found = self._sells_in[currency] = np.zeros(len(self._market.rows), np.bool_)
            found[
                [
                    row
                    for row, seller in self._sellers.items()
                    if currency in seller.capabilities.currencies
                ]
            ] = True
        return found


class Choice:
    """Whom to ask in one collection, phase by phase.

    Attributes:
        session: what was chosen and answered.

    """

    def __init__(self, selector: Selector, session: Session, currency: str) -> None:
        """Choose in a session that has begun."""
        self.session = session
        self._selector = selector
        self._currency = currency
        self._told: set[str] = set()

    def next(self) -> Chosen | None:
        """Give whom to ask next; None when nobody is left."""
        phase = self.session.phase
        if phase is None:
            return None
        sellers = self._selector.choose(self.session)
        return Chosen(sellers, phase.until_s) if sellers else None

    def answered(self, answers: Sequence[Answer]) -> None:
        """Take all answers so far; those that were given before are passed over."""
        new = [answer for answer in answers if answer.seller_id not in self._told]
        if new:
            self._told.update(answer.seller_id for answer in new)
            self._selector.answers(new, self.session)

    def goes_on(self, highest_minor: int) -> bool:
        """Say whether a next phase can still matter to somebody who will pay so much at the most."""
        return self.session.goes_on(highest_minor)

    def coverage(self) -> Coverage:
        """State what may have been missed by not asking the others."""
        said = self.session.coverage()
        saving = said.expected_saving_minor
        return Coverage(
            asked=said.asked,
            of=said.of,
            chance_cheaper=said.chance_cheaper,
            expected_saving=None if saving is None else Money(self._currency, saving),
        )


def _record(
    collection_id: UUID, question: Question, asked_at: datetime, answers: Sequence[Answer]
) -> CollectionRecord:
    return CollectionRecord(
        collection_id=collection_id,
        book_id=question.book_id,
        currency=question.currency,
        conditions=question.conditions,
        started_at=asked_at,
        elapsed_s=max((answer.latency_s for answer in answers), default=0.0),
        answers=answers,
    )
