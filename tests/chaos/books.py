"""Everybody's books, and what must be true of them when all is quiet (DESIGN, I1 to I12)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, TypeVar

from tests.chaos.customers import Told

QUIET_STAGES = frozenset({"done", "flagged", "offer"})
"""Stages in which nothing is left to do: in "offer" the token alone waits to be erased."""

_FOREVER = datetime.max.replace(tzinfo=UTC)

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A row of ours, with its payment."""

    request_id: str
    customer_id: str
    idempotency_key: str | None
    max_price_minor: int
    status: str
    failure_reason: str | None
    stage: str
    has_token: bool
    payment_state: str
    authorized_minor: int
    captured_minor: int | None
    provider_id: str | None
    attempt_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A row of ours: a try at a seller."""

    request_id: str
    number: int
    seller_id: str
    key: str
    with_hold: bool
    agreed_minor: int
    order_id: str | None
    charged_minor: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A row of ours: what happened."""

    request_id: str
    seq: int
    happened_at: datetime
    kind: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A row of ours: something that an operator has to look at; ``raised`` until that is done."""

    request_id: str
    invariant: str
    detail: str
    raised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A row of ours: something that the customer is to be told."""

    request_id: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """In the payment provider's books."""

    authorization_id: str
    reference: str
    state: str
    authorized_minor: int
    captured_minor: int
    captures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """In a seller's books; ``state`` as the contract calls it, total and id of a confirmed one."""

    seller_id: str
    key: str
    state: str
    total_minor: int | None
    order_id: str
    created_at: datetime
    updated_at: datetime

    @property
    def request_id(self) -> str:
        """The purchase for which it was made, by its key."""
        return self.key.split(":", maxsplit=1)[0]

    @property
    def stands(self) -> bool:
        """Whether the seller delivers, or may yet."""
        return self.state in {"confirmed", "pending"}

    @property
    def stood_until(self) -> datetime:
        """Until when it stood; when it came into being if it never did."""
        if self.state == "closed":
            return self.created_at
        return _FOREVER if self.stands else self.updated_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """In a seller's books."""

    seller_id: str
    key: str
    state: str

    @property
    def request_id(self) -> str:
        """The purchase for which it was made, by its key."""
        return self.key.split(":", maxsplit=1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All of it."""

    told: Sequence[Told]
    purchases: Sequence[Purchase]
    attempts: Sequence[Attempt]
    events: Sequence[Event]
    flags: Sequence[Flag]
    outbox: Sequence[Message]
    authorizations: Sequence[Authorization]
    orders: Sequence[Order]
    holds: Sequence[Hold]


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be.

    Attributes:
        rule: "lost", "double", "stray", "answer", or the invariant.
        request_id: where; empty where there is no such purchase.
        detail: what.

    """

    rule: str
    request_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What was paid for books, in cents, by whose books."""

    customers: int
    ours: int
    provider: int
    sellers: int

    @property
    def apart(self) -> int:
        """The largest difference between two of them."""
        sums = (self.customers, self.ours, self.provider, self.sellers)
        return max(sums) - min(sums)


@dataclass(frozen=True, slots=True)
class _Case:
    """All that anybody has of one purchase."""

    purchase: Purchase
    told: Told | None
    attempts: Sequence[Attempt]
    events: Sequence[Event]
    flags: Sequence[Flag]
    outbox: Sequence[Message]
    authorizations: Sequence[Authorization]
    orders: Sequence[Order]
    holds: Sequence[Hold]


def totals(books: Books) -> Totals:
    """Add up what was paid. What a seller has sold in a purchase that is flagged is not: that is why it is."""
    flagged = {row.request_id for row in books.purchases if row.stage == "flagged"}
    return Totals(
        customers=sum(
            cents(told.answers[-1]["final_price"])
            for told in books.told
            if told.answers and told.answers[-1]["status"] == "purchased"
        ),
        ours=sum(purchase.captured_minor or 0 for purchase in books.purchases),
        provider=sum(authorization.captured_minor for authorization in books.authorizations),
        sellers=sum(
            order.total_minor or 0
            for order in books.orders
            if order.stands and order.request_id not in flagged
        ),
    )


def cents(amount: float) -> int:
    """Give an amount of the customer's API in cents: it has at most two decimals."""
    return round(amount * 100)


def audit(books: Books) -> list[Violation]:
    """Give all that is wrong, in all books."""
    found = [*_lost(books), *_double(books), *_strays(books)]
    for case in _cases(books):
        for rule in _RULES:
            found += [
                Violation(
                    rule.__name__.strip("_").replace("_", " "), case.purchase.request_id, detail
                )
                for detail in rule(case)
            ]
    return found


def story(books: Books, request_id: str) -> dict[str, list[str]]:
    """Give everything that anybody has of a purchase, for people."""
    parts: dict[str, Sequence[Any]] = {
        "told": [told for told in books.told if request_id in told.request_ids],
        "purchase": [row for row in books.purchases if row.request_id == request_id],
        "attempts": [row for row in books.attempts if row.request_id == request_id],
        "events": [row for row in books.events if row.request_id == request_id],
        "flags": [row for row in books.flags if row.request_id == request_id],
        "outbox": [row for row in books.outbox if row.request_id == request_id],
        "provider": [row for row in books.authorizations if row.reference == request_id],
        "orders": [row for row in books.orders if row.request_id == request_id],
        "holds": [row for row in books.holds if row.request_id == request_id],
    }
    return {name: [str(row) for row in rows] for name, rows in parts.items()}


def _lost(books: Books) -> Iterator[Violation]:
    """What a customer asked for is in our books."""
    known = {purchase.request_id for purchase in books.purchases}
    for told in books.told:
        if told.request_id is None:
            yield Violation("lost", "", f"{told.wish} was never accepted: {told.oddities}")
        for request_id in told.request_ids - known:
            yield Violation("lost", request_id, f"{told.wish.key} was accepted, and is not there")


def _double(books: Books) -> Iterator[Violation]:
    """What a customer asked for is there once."""
    for told in books.told:
        if len(told.request_ids) > 1:
            yield Violation("double", min(told.request_ids), f"{told.wish.key}: {told.request_ids}")
    keys = Counter(
        (row.customer_id, row.idempotency_key) for row in books.purchases if row.idempotency_key
    )
    for (customer, key), number in keys.items():
        if number > 1:
            yield Violation("double", "", f"{customer} has {number} purchases under {key}")


def _strays(books: Books) -> Iterator[Violation]:
    """Nobody has anything that nobody asked for."""
    asked = {(told.wish.customer, told.wish.key) for told in books.told if told.wish.key}
    accepted = {
        request_id
        for told in books.told
        if told.wish.key is None
        for request_id in told.request_ids
    }
    for row in books.purchases:
        if (row.customer_id, row.idempotency_key) not in asked and row.request_id not in accepted:
            yield Violation("stray", row.request_id, "nobody asked for this purchase")
    ours = {purchase.request_id for purchase in books.purchases}
    for authorization in books.authorizations:
        if authorization.reference not in ours:
            yield Violation("stray", authorization.reference, f"the provider has {authorization}")
    tried = {(attempt.seller_id, attempt.key) for attempt in books.attempts}
    entries: list[Order | Hold] = [*books.orders, *books.holds]
    for entry in entries:
        if (entry.seller_id, entry.key) not in tried:
            yield Violation("stray", entry.request_id, f"no attempt of ours made {entry}")


def _cases(books: Books) -> Iterator[_Case]:
    told = {told.request_id: told for told in books.told}
    attempts = _by(books.attempts, lambda row: row.request_id)
    events = _by(books.events, lambda row: row.request_id)
    flags = _by(books.flags, lambda row: row.request_id)
    outbox = _by(books.outbox, lambda row: row.request_id)
    authorizations = _by(books.authorizations, lambda row: row.reference)
    orders = _by(books.orders, lambda row: row.request_id)
    holds = _by(books.holds, lambda row: row.request_id)
    for purchase in books.purchases:
        name = purchase.request_id
        yield _Case(
            purchase,
            told.get(name),
            attempts[name],
            events[name],
            flags[name],
            outbox[name],
            authorizations[name],
            orders[name],
            holds[name],
        )


def _by(rows: Sequence[ItemT], key: Callable[[ItemT], str]) -> dict[str, list[ItemT]]:
    found: dict[str, list[ItemT]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def _answer(case: _Case) -> Iterator[str]:
    """The customer was told what is in our books, always the same."""
    told, purchase = case.told, case.purchase
    if told is None:
        return
    yield from told.oddities
    pending = purchase.status == "pending"
    if pending != (not told.answers):
        yield f"is {purchase.status}, and the customer was told {told.answers}"
    if pending or not told.answers:
        return
    first, *others = map(_lasting, told.answers)
    yield from (
        f"the customer was told {first}, then {other}" for other in others if other != first
    )
    if first["status"] != purchase.status:
        yield f"is {purchase.status}, and the customer was told {first['status']}"
    elif purchase.status == "purchased":
        said = (cents(first["final_price"]), first["seller_id"], first["confirmation"])
        sold = [(row.total_minor, row.seller_id, row.order_id) for row in case.orders if row.stands]
        if sold != [said]:
            yield f"the customer was told {said}, and the sellers have {sold}"
    if told.cancel == "cancelled" != purchase.status:
        yield f"the customer was told that it is cancelled, and it is {purchase.status}"
    if told.declined and purchase.payment_state != "declined":
        yield f"the customer was told 402, and the payment is {purchase.payment_state}"


def _lasting(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may be added to a final answer."""
    return {name: value for name, value in answer.items() if name != "offer_accepted_by"}


def _I1(case: _Case) -> Iterator[str]:
    """No capture without a confirmed order."""
    confirmed = [order for order in case.orders if order.state == "confirmed"]
    if any(row.captures for row in case.authorizations) and not confirmed:
        yield f"captured, and the orders are {case.orders}"


def _I2(case: _Case) -> Iterator[str]:
    """At most one order stands, at any moment."""
    for one, other in combinations(case.orders, 2):
        if max(one.created_at, other.created_at) < min(one.stood_until, other.stood_until):
            yield f"two orders stood at once: {one} and {other}"


def _I3(case: _Case) -> Iterator[str]:
    """At most one capture, of the order's total, within what was agreed, what was authorized, max_price."""
    purchase = case.purchase
    if len(case.authorizations) > 1:
        yield f"authorized more than once: {case.authorizations}"
    if purchase.authorized_minor != purchase.max_price_minor:
        yield f"authorized {purchase.authorized_minor}, and max_price is {purchase.max_price_minor}"
    for row in case.authorizations:
        if row.captures > 1:
            yield f"captured {row.captures} times"
        if row.authorized_minor != purchase.max_price_minor:
            yield f"the provider has authorized {row.authorized_minor}"
        sold = {order.total_minor for order in case.orders if order.state == "confirmed"}
        if row.captures and row.captured_minor not in sold:
            yield f"captured {row.captured_minor}, and the orders' totals are {sold}"
        agreed = [
            attempt.agreed_minor
            for attempt in case.attempts
            if attempt.number == purchase.attempt_number
        ]
        if row.captures and row.captured_minor > max(agreed, default=0):
            yield f"captured {row.captured_minor}, and {agreed} was agreed"
        if row.captured_minor > purchase.max_price_minor:
            yield f"captured {row.captured_minor} of at most {purchase.max_price_minor}"


def _I4(case: _Case) -> Iterator[str]:
    """A final status comes once, and events have no gaps."""
    numbers = sorted(event.seq for event in case.events)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the events are numbered {numbers}"
    finals = sum(event.kind == "finished" for event in case.events)
    if finals != (case.purchase.status != "pending"):
        yield f"is {case.purchase.status} with {finals} final events"


def _I7(case: _Case) -> Iterator[str]:
    """Final or flagged; flagged only where no rule can decide: a charge refused for a book that is not taken back."""
    purchase = case.purchase
    raised = [flag for flag in case.flags if flag.raised]
    if purchase.stage not in QUIET_STAGES:
        yield f"is still {purchase.status} in stage {purchase.stage}"
    elif purchase.status == "pending" and purchase.stage != "flagged":
        yield f"is pending in stage {purchase.stage}"
    elif purchase.has_token and purchase.stage == "done":
        yield "its payment token is still there"
    if (purchase.stage == "flagged") != bool(raised):
        yield f"is in stage {purchase.stage} with {raised}"
    refused = any('"capture_refused"' in event.body for event in case.events)
    if raised and not (refused and any(order.stands for order in case.orders)):
        yield f"is flagged without need: {raised}"


def _I8(case: _Case) -> Iterator[str]:
    """Purchased, one order that stands, one capture: all of them or none."""
    if case.purchase.stage == "flagged":
        return
    facts = (
        int(case.purchase.status == "purchased"),
        sum(order.stands for order in case.orders),
        sum(row.captures for row in case.authorizations),
    )
    if facts not in {(1, 1, 1), (0, 0, 0)}:
        yield f"is {case.purchase.status} with {facts[1]} orders that stand and {facts[2]} captures"


def _I9(case: _Case) -> Iterator[str]:
    """No hold is left, and nothing is reserved."""
    for hold in case.holds:
        if hold.state == "held":
            yield f"{hold} is left"
    if case.purchase.stage != "flagged":
        for row in case.authorizations:
            if row.state == "authorized":
                yield f"{row.authorized_minor} is still reserved"


def _I10(case: _Case) -> Iterator[str]:
    """Authorized is captured and released."""
    for row in case.authorizations:
        if row.state == "voided" and (row.captures, row.captured_minor) != (0, 0):
            yield f"voided and captured: {row}"
        if row.state == "captured" and (row.captures, row.captured_minor > 0) != (1, True):
            yield f"captured without an amount: {row}"


def _I11(case: _Case) -> Iterator[str]:
    """The customer is told of the end once."""
    kinds = [message.kind for message in case.outbox]
    if kinds != ([] if case.purchase.status == "pending" else ["final"]):
        yield f"is {case.purchase.status}, and the outbox has {kinds}"


def _I12(case: _Case) -> Iterator[str]:
    """The provider and the sellers have what we have."""
    purchase = case.purchase
    theirs = [
        (row.authorization_id, row.state, row.captured_minor if row.captures else None)
        for row in case.authorizations
    ]
    ours = (purchase.provider_id, purchase.payment_state, purchase.captured_minor)
    if theirs != ([] if purchase.payment_state == "declined" else [ours]):
        yield f"the provider has {theirs}, and we have {ours}"
    sold = {
        (order.seller_id, order.key, order.order_id, order.total_minor)
        for order in case.orders
        if order.state == "confirmed"
    }
    bought = {
        (row.seller_id, row.key, row.order_id, row.charged_minor)
        for row in case.attempts
        if row.number == purchase.attempt_number and row.outcome == "confirmed"
    }
    if sold != bought:
        yield f"the sellers have {sold}, and we have {bought}"


_RULES = (_answer, _I1, _I2, _I3, _I4, _I7, _I8, _I9, _I10, _I11, _I12)
