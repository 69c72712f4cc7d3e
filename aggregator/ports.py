"""What the use cases need from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aggregator.domain.collection import Answer, Question
from aggregator.domain.history import CollectionRecord
from aggregator.selection.columns import (
    BookColumns,
    CategoryColumns,
    Floats,
    GeneralColumns,
    SellerColumns,
    TopicColumns,
)
from sellers.admission.model import (
    Ask,
    Decision,
    Grant,
    Limits,
    Outcome,
    Purpose,
    SellerHealth,
)
from sellers.model import (
    BatchOutcome,
    Capabilities,
    Condition,
    QuoteOutcome,
    Seller,
    SellerState,
)


class QuoteSource(Protocol):
    """Asks sellers for prices."""

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> QuoteOutcome:
        """Ask one seller; whatever it or the network does is a value. Cancellation reaches the call."""
        ...

    async def batch_get_quotes(
        self,
        seller: Seller,
        book_ids: Sequence[str],
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> BatchOutcome:
        """Ask one seller for several books in one call; one outcome a book, in their order. Else as ``get_quote``."""
        ...


class CallAdmission(Protocol):
    """Says which calls to sellers may be made. ``sellers.admission`` does."""

    async def admit(self, asks: Sequence[Ask], purpose: Purpose) -> Sequence[Decision]:
        """Decide on each call, in one round trip. Never raises."""
        ...

    def report(self, grant: Grant, outcome: Outcome) -> None:
        """Take note of how a granted call ended, once. Returns at once."""
        ...


class SellerStore(Protocol):
    """Keeps the registry. Its methods raise ``mesh.errors.Unavailable`` while it cannot be reached."""

    async def revision(self) -> int:
        """Give the revision of the last change; 0 before the first."""
        ...

    async def since(self, revision: int) -> Sequence[Seller]:
        """Give the sellers that changed after a revision, as they are now; all of them after 0."""
        ...

    async def put(self, sellers: Sequence[Seller]) -> int:
        """Add or replace sellers, all or none, and give the revision after it.

        Those that change get that revision, whatever theirs was; where nothing changes the revision stays.
        """
        ...

    async def set_state(self, seller_ids: Sequence[str], state: SellerState) -> int:
        """Change the state of sellers, all or none, and give the revision after it, as ``put`` does.

        Raises:
            NotFound: naming those that are not registered.

        """
        ...

    async def set_capabilities(
        self, seller_id: str, capabilities: Capabilities, seen_revision: int
    ) -> int:
        """Change what a seller can do, unless it has changed since its revision was this; as ``put`` else."""
        ...


class CapabilityChecks(Protocol):
    """Remembers when each seller was asked what it can do. Raises ``mesh.errors.Unavailable`` when it cannot."""

    async def claim(self, older_than_s: float, most: int) -> Sequence[str]:
        """Take sellers that were not asked for so long; nobody else in the fleet gets them for the same time."""
        ...

    async def retry(self, seller_id: str, older_than_s: float, after_s: float) -> None:
        """Let whoever claims what is that old get a seller again in so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """What is known of a question, and whose it is to find out the rest.

    Attributes:
        answers: those that are still good, each with ``cached`` set.
        good_for_s: for how many seconds more each of them is good, by seller.
        leading: whether whoever opened it now leads: it alone in the whole fleet asks sellers this question.

    """

    answers: Sequence[Answer]
    good_for_s: Mapping[str, float]
    leading: bool


class QuoteCache(Protocol):
    """Answers of sellers that are still good, shared by the fleet; and who in the fleet asks which question.

    A quote is good for 60 s, or until 10 s before it expires if that is sooner; that a book is not carried, out of
    stock or not had as wanted for 60 s. A failure (time out, error, ...), a call not made, and a quote that expires
    within those 10 s are good for 1 s, so that those who follow learn of them. All are settings. A failure does not
    displace an answer that is good for longer. Where the shared part does not answer, the process serves itself: it
    leads, and knows what it has itself found or read. No method raises.
    """

    async def open(
        self, question: Question, sellers: Collection[str], *, ahead_s: float = 0.0
    ) -> Opened:
        """Give what is known of these sellers; where some are missing, lead unless somebody else does.

        An answer that is good for no more than ``ahead_s`` counts as missing, though it is given: so a question is led
        in order to refresh it. Who leads already leads once more, and leads until each such ``open`` has had its
        ``close``; one that is cancelled needs none. The lead ends by itself a second after it was last renewed: whoever
        follows opens again, about once a second or when ``changes`` says so, and leads when its turn has come.
        """
        ...

    def put(self, question: Question, answers: Sequence[Answer]) -> None:
        """Keep answers, tell those who follow, and renew one's lead. Returns at once; they hear of it in some ms.

        Answers that were known already (``cached``) are passed over: putting them makes them no better.
        """
        ...

    def renew(self, question: Question) -> None:
        """Go on leading although there is nothing new. Returns at once."""
        ...

    def close(self, question: Question) -> None:
        """Take back one ``open`` that led. With the last of them the lead ends, and those who follow are told.

        Returns at once; what was put before is written before.
        """
        ...

    def changes(self, question: Question) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set when somebody else has put or closed something of this question.

        Only once an ``open`` has said that somebody else leads: enter this first, then open. It may be set for nothing.
        Whoever waits clears it.
        """
        ...


class QuoteHistory(Protocol):
    """Keeps what sellers answered, for those who ask later."""

    def record(self, record: CollectionRecord) -> None:
        """Keep a collection that has ended. Returns at once and never raises; written soon after, if it can be."""
        ...


class HistoryStore(Protocol):
    """Stores the history, in a partition for each day (UTC).

    Its methods raise ``mesh.errors.Unavailable`` while it cannot be reached; then it is not known what they did.
    """

    async def write(self, records: Sequence[CollectionRecord]) -> None:
        """Store collections, all or none; one that is stored already stays as it is.

        Raises:
            Exception: if one of them can never be stored.

        """
        ...

    async def make_partitions(self, first_day: date, days: int) -> None:
        """See to it that the collections of these days can be stored."""
        ...

    async def drop_partitions(self, before_day: date) -> int:
        """Forget the collections of all days before one; give how many days those were."""
        ...


class FleetHealth(Protocol):
    """Knows how calls to sellers went. ``sellers.admission`` does."""

    async def health(self, sellers: Sequence[Limits]) -> Sequence[SellerHealth]:
        """Say how sellers are doing, in their order, in one round trip. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Lesson:
    """What sellers answered about one book in one collection.

    Attributes:
        book_id: which.
        at_s: when it began, in seconds since 1970.
        seller_ids: who was asked, none twice.
        state: a ``State`` each.
        total_minor: their totals, 0 where there is none.
        latency_s: how long each took; nan where that is not known.

    """

    book_id: str
    at_s: float
    seller_ids: Sequence[str]
    state: NDArray[np.uint8]
    total_minor: NDArray[np.int32]
    latency_s: Floats


class MarketStore(Protocol):
    """Remembers what was learned of the market. In its columns a row is a seller's number.

    Its methods raise ``mesh.errors.Unavailable`` while it cannot be reached. What it cannot read it gives as unknown.
    """

    async def numbers(self, seller_ids: Sequence[str]) -> Mapping[str, int]:
        """Give the sellers' numbers, which they keep for good."""
        ...

    async def books(self, book_ids: Sequence[str]) -> Sequence[BookColumns]:
        """Give what is known of books, of those of which anything is."""
        ...

    async def merge_books(self, books: Sequence[BookColumns]) -> None:
        """Remember books, beside what others have learned of them: of each seller the newest answer stays."""
        ...

    async def sellers(self) -> SellerColumns | None:
        """Give what this process has learned of sellers; what another one has, if this one has nothing."""
        ...

    async def general(self) -> GeneralColumns | None:
        """Give what holds for all sellers together; as ``sellers``."""
        ...

    async def category(self, name: str) -> CategoryColumns | None:
        """Give what this process has learned of a category; as ``sellers``."""
        ...

    async def put_learned(
        self,
        sellers: SellerColumns,
        general: GeneralColumns,
        categories: Sequence[CategoryColumns],
        now: datetime,
    ) -> None:
        """Remember what this process has learned of sellers and of some categories, in place of what was."""
        ...

    async def topics(self) -> TopicColumns | None:
        """Give what this process has learned of kinds of books; as ``sellers``."""
        ...

    async def put_topics(self, topics: TopicColumns, now: datetime) -> None:
        """Remember what this process has learned of kinds of books, in place of what was; to three digits."""
        ...

    async def drop_books(self, before: datetime) -> None:
        """Forget books of which nothing was learned since."""
        ...


class Past(Protocol):
    """Knows what sellers answered in collections that are over."""

    async def count_past(self) -> int:
        """Give how many collections there are."""
        ...

    def past(self, currency: str) -> AsyncIterator[Sequence[Lesson]]:
        """Give what those in one currency teach, the oldest first, many at a time."""
        ...
