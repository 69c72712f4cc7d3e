"""What the use cases need from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from aggregator.domain.collection import Answer, Question
from sellers.model import Condition, QuoteOutcome, Seller, SellerState


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


@dataclass(frozen=True, slots=True)
class Opened:
    """What is known of a question, and whose it is to find out the rest.

    Attributes:
        answers: those that are still good, each with ``cached`` set.
        leading: whether whoever opened it now leads: it alone in the whole fleet asks sellers this question.

    """

    answers: Sequence[Answer]
    leading: bool


class QuoteCache(Protocol):
    """Answers of sellers that are still good, shared by the fleet; and who in the fleet asks which question.

    A quote is good for 60 s, or until 10 s before it expires if that is sooner; that a book is not carried, out of
    stock or not had as wanted for 60 s; a failure (time out, error, ...) for 1 s, so that those who follow learn of it.
    All are settings. Where the shared part does not answer, the process serves itself: it leads, and knows what it has
    itself found. No method raises.
    """

    async def open(self, question: Question, sellers: Collection[str]) -> Opened:
        """Give what is known of these sellers; where some are missing, lead unless somebody else does.

        The lead ends by itself a second after it was last renewed: whoever follows opens again, about once a second or
        when ``changes`` says so, and leads when its turn has come.
        """
        ...

    def put(self, question: Question, answers: Sequence[Answer]) -> None:
        """Keep answers, tell those who follow, and renew the lead. Returns at once; written within some ms."""
        ...

    def renew(self, question: Question) -> None:
        """Go on leading although there is nothing new. Returns at once."""
        ...

    def close(self, question: Question) -> None:
        """End the lead, and tell those who follow. Returns at once; what was put before is written before."""
        ...

    def changes(self, question: Question) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set when somebody else has put or closed something of this question."""
        ...
