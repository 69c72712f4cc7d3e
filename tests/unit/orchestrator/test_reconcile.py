"""What comparing does when others do not answer, never end, or change while it looks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest

from mesh.errors import Unavailable
from mesh.money import Money
from orchestrator.app.reconcile.compare import Comparer
from orchestrator.app.reconcile.model import PROVIDER, Comparison, Period, ReconcileSettings
from orchestrator.domain.purchase import AuthorizationState, Status
from orchestrator.domain.reconciliation import Booked, BookedAttempt, Kind
from orchestrator.ports import PaymentState, ProviderPayment, Unknown
from sellers.model import (
    CallFailed,
    Cancelled,
    CancelOutcome,
    Confirmed,
    FailureKind,
    GetOrderOutcome,
    ListOrdersOutcome,
    Order,
    OrderNotFound,
    OrderPage,
)
from tests.fakes.clock import PushedClock

THEN = datetime.now(UTC) - timedelta(hours=3)
PERIOD = Period(THEN - timedelta(days=1), THEN + timedelta(hours=2))
PRICE = Money("USD", 2000)
NONE = Money("USD", 0)
LOST = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="no answer")


def bought(number: int, seller_id: str = "a") -> Booked:
    request_id = UUID(int=number)
    return Booked(
        request_id,
        THEN,
        Status.PURCHASED,
        "done",
        None,
        AuthorizationState.CAPTURED,
        f"auth_{number}",
        Money("USD", 2999),
        captured=PRICE,
        attempts=(
            BookedAttempt(1, seller_id, f"{request_id}:{seller_id}", THEN, PRICE, "confirmed"),
        ),
        last_attempt=1,
    )


class FakeBooks:
    """Our books in memory."""

    def __init__(self, *books: Booked) -> None:
        self.books = {booked.request_id: booked for booked in books}

    async def booked(self, request_ids: Sequence[UUID]) -> dict[UUID, Booked]:
        return {i: self.books[i] for i in request_ids if i in self.books}

    async def booked_under(self, keys: Sequence[str]) -> dict[str, Booked]:
        return {
            attempt.key: booked
            for booked in self.books.values()
            for attempt in booked.attempts
            if attempt.key in keys
        }

    async def committed(self, since: datetime, until: datetime) -> AsyncIterator[list[Booked]]:
        yield [b for b in self.books.values() if since <= b.created_at < until]

    async def open(self, until: datetime) -> AsyncIterator[list[Booked]]:
        yield [b for b in self.books.values() if b.due_at is not None or b.flags]

    async def busy(self, request_ids: Sequence[UUID]) -> bool:
        return False


class FakeProvider:
    """The provider's books in memory; ``fails`` says how often listing fails half-way."""

    reusable_tokens = False

    def __init__(self, *payments: ProviderPayment) -> None:
        self.payments = {payment.provider_id: payment for payment in payments}
        self.fails = 0
        self.silent = False

    async def get(self, provider_id: str) -> ProviderPayment | Unknown | None:
        return Unknown("no answer") if self.silent else self.payments.get(provider_id)

    async def list_since(
        self, since: datetime, page_size: int = 100
    ) -> AsyncIterator[ProviderPayment]:
        for number, payment in enumerate(list(self.payments.values())):
            if self.fails and number == len(self.payments) // 2:
                self.fails -= 1
                raise Unavailable("the provider does not answer")
            yield payment


@dataclass
class FakeSellers:
    """The sellers' books in memory; ``lists`` replaces a seller's list."""

    orders: dict[str, dict[str, Order]] = field(default_factory=dict)
    lists: dict[str, Callable[[str], ListOrdersOutcome]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    on_find: Callable[[], None] = lambda: None

    def ids(self) -> list[str]:
        return sorted(self.orders)

    async def list_orders(
        self, seller_id: str, changed_from: datetime, page_token: str
    ) -> ListOrdersOutcome:
        if seller_id in self.lists:
            return self.lists[seller_id](page_token)
        return OrderPage(tuple(self.orders[seller_id].values()), "")

    async def find_order(self, seller_id: str, key: str) -> GetOrderOutcome:
        if seller_id in self.silent:
            return LOST
        self.on_find()
        order = self.orders[seller_id].get(key)
        return OrderNotFound() if order is None else order.state

    async def cancel_stray(self, seller_id: str, key: str) -> CancelOutcome:
        raise AssertionError("comparing changes nothing")


class World:
    """Three books that agree."""

    def __init__(self, purchases: int = 1) -> None:
        self.purchases = [bought(number) for number in range(1, purchases + 1)]
        self.books = FakeBooks(*self.purchases)
        self.provider = FakeProvider(*(_payment(booked) for booked in self.purchases))
        self.sellers = FakeSellers({"a": {o.key: o for o in map(_order, self.purchases)}})
        self.settings = ReconcileSettings(tries=2)
        self.clock = PushedClock()

    @property
    def key(self) -> str:
        """The first purchase's."""
        return self.purchases[0].attempts[0].key

    async def compared(self) -> Comparison:
        comparer = Comparer(
            self.books,
            self.provider,
            self.sellers,
            settings=self.settings,
            clock=self.clock,
        )
        return (await comparer.compare(PERIOD)).found

    def cancel(self) -> None:
        """Let the seller cancel the first order."""
        orders = self.sellers.orders["a"]
        orders[self.key] = replace(orders[self.key], state=Cancelled())


def _payment(booked: Booked) -> ProviderPayment:
    return ProviderPayment(
        booked.provider_id or "",
        str(booked.request_id),
        PaymentState.CAPTURED,
        booked.authorized,
        PRICE,
        NONE,
        None,
        THEN,
    )


def _order(booked: Booked) -> Order:
    [attempt] = booked.attempts
    state = Confirmed("o", PRICE)
    return Order(attempt.key, str(booked.request_id), "b", state, THEN)


def kinds(found: Comparison) -> list[Kind]:
    return [outcome.finding.kind for outcome in found.outcomes]


async def test_books_that_agree() -> None:
    found = await World(250).compared()
    assert (kinds(found), found.gaps) == ([], [])
    assert (found.purchases, found.payments, found.orders, found.sellers) == (250, 250, 250, 1)


async def test_a_difference_is_found_once_however_often_it_is_seen() -> None:
    world = World(3)
    world.cancel()
    world.books.books[UUID(int=2)] = replace(bought(2), due_at=THEN, stage="void")
    found = await world.compared()
    assert sorted(kinds(found)) == [Kind.ORDER_CANCELLED, Kind.OVERDUE]


async def test_what_is_over_at_the_second_look_is_no_finding() -> None:
    world = World()
    world.cancel()
    booked = world.purchases[0]

    def refund() -> None:
        world.books.books[booked.request_id] = replace(booked, refunded=PRICE)
        payment = world.provider.payments["auth_1"]
        world.provider.payments["auth_1"] = replace(payment, refunded=PRICE)

    world.sellers.on_find = refund
    assert kinds(await world.compared()) == []


async def test_a_purchase_that_changes_at_every_look_is_no_finding() -> None:
    world = World()
    world.cancel()
    times = count(1)

    def change() -> None:
        booked = world.books.books[UUID(int=1)]
        world.books.books[UUID(int=1)] = replace(booked, stage=f"done {next(times)}")

    world.sellers.on_find = change
    assert kinds(await world.compared()) == []


async def test_a_provider_that_fails_half_way_is_asked_again() -> None:
    world = World(4)
    world.provider.fails = 1
    found = await world.compared()
    assert (kinds(found), found.gaps, found.payments) == ([], [], 4)


@pytest.mark.parametrize("asked", ["booked", "booked_under"])
async def test_our_own_database_is_not_taken_for_the_provider_nor_for_a_fault(asked: str) -> None:
    """It is away for a moment. Who has the run leaves it to the next, instead of ending it without its findings."""
    world = World(purchases=150)
    answers = getattr(world.books, asked)
    times = count(1)

    async def away(names: Sequence[object]) -> object:
        if next(times) <= world.settings.tries:
            raise Unavailable("the database does not answer")
        return await answers(names)

    setattr(world.books, asked, away)
    with pytest.raises(Unavailable, match="the database does not answer"):
        await world.compared()


async def test_a_provider_that_never_ends_its_list_makes_a_gap_and_no_finding() -> None:
    world = World(4)
    world.provider.fails = 99
    del world.provider.payments["auth_4"]
    found = await world.compared()
    assert kinds(found) == [], "what was not listed is not missing"
    assert [gap.who for gap in found.gaps] == [PROVIDER]


async def test_a_provider_that_is_silent_at_the_second_look_makes_a_gap() -> None:
    world = World(1)
    world.provider.payments["auth_1"] = replace(
        world.provider.payments["auth_1"], state=PaymentState.VOIDED, captured=NONE
    )
    world.provider.silent = True
    found = await world.compared()
    assert (kinds(found), [gap.who for gap in found.gaps]) == ([], [PROVIDER])


async def test_a_payment_that_no_list_has_is_asked_for_by_its_name() -> None:
    world = World(2)
    del world.provider.payments["auth_2"]
    assert kinds(await world.compared()) == [Kind.PAYMENT_MISSING]


async def test_an_order_that_no_list_has_is_asked_for_by_its_key() -> None:
    world = World(2)
    hidden = world.sellers.orders["a"]
    world.sellers.lists["a"] = lambda _token: OrderPage((), "")
    assert kinds(await world.compared()) == [], "it is there, only not in the list"
    del hidden[world.key]
    assert kinds(await world.compared()) == [Kind.ORDER_MISSING]


async def test_a_key_that_a_seller_may_have_forgotten_is_not_missing() -> None:
    world = World()
    world.sellers.orders["a"].clear()
    world.clock.push(timedelta(days=7).total_seconds())
    assert kinds(await world.compared()) == []


async def test_a_seller_that_does_not_answer_makes_a_gap_and_the_others_are_compared() -> None:
    world = World()
    world.cancel()
    other = bought(9, "b")
    world.books.books[other.request_id] = other
    world.provider.payments["auth_9"] = _payment(other)
    world.sellers.orders["b"] = {}
    world.sellers.lists["b"] = lambda _token: LOST
    found = await world.compared()
    assert kinds(found) == [Kind.ORDER_CANCELLED]
    assert [(gap.who, gap.why) for gap in found.gaps] == [("b", "timed_out: no answer")]


async def test_a_seller_that_is_silent_at_the_second_look_makes_a_gap() -> None:
    world = World()
    world.cancel()
    world.sellers.silent.add("a")
    found = await world.compared()
    assert (kinds(found), [gap.who for gap in found.gaps]) == ([], ["a"])


async def test_a_seller_that_was_taken_off_the_registry_makes_a_gap() -> None:
    world = World()
    world.sellers.orders["b"] = world.sellers.orders.pop("a")
    world.sellers.orders["b"].clear()
    found = await world.compared()
    assert (kinds(found), [gap.who for gap in found.gaps]) == ([], ["a"])


def _forever(world: World) -> Callable[[str], ListOrdersOutcome]:
    orders = tuple(world.sellers.orders["a"].values())
    return lambda token: OrderPage(orders, str(int(token or 0) + 1))


def _round(world: World) -> Callable[[str], ListOrdersOutcome]:
    orders = tuple(world.sellers.orders["a"].values())
    return lambda token: OrderPage(orders, "1" if token in {"", "2"} else "2")


def _empty(world: World) -> Callable[[str], ListOrdersOutcome]:
    return lambda token: OrderPage((), token + "x")


@pytest.mark.parametrize(
    ("pages", "why"),
    [(_forever, "no end after 400 pages"), (_round, "in circles"), (_empty, "in circles")],
)
async def test_a_seller_whose_list_has_no_end_makes_a_gap_and_no_finding(
    pages: Callable[[World], Callable[[str], ListOrdersOutcome]], why: str
) -> None:
    world = World()
    world.sellers.lists["a"] = pages(world)
    found = await world.compared()
    assert kinds(found) == []
    [gap] = found.gaps
    assert gap.who == "a"
    assert why in gap.why


async def test_a_seller_that_invents_orders_is_not_listed_for_ever() -> None:
    world = World()
    invented = {
        f"made-up-{n}": Order(f"made-up-{n}", "x", "b", Confirmed("o", PRICE), THEN)
        for n in range(700)
    }
    world.sellers.orders["b"] = invented
    world.settings = replace(world.settings, findings_of_a_seller=20)
    world.sellers.lists["b"] = lambda token: OrderPage(
        tuple(invented.values()), str(int(token or 0) + 1)
    )
    found = await world.compared()
    assert kinds(found) == [Kind.UNKNOWN_ORDER] * 21
    assert [(gap.who, gap.why) for gap in found.gaps] == [
        ("b", "more than 20 of its orders differ")
    ]


async def test_more_findings_than_can_be_listed_make_a_gap() -> None:
    world = World(10)
    world.provider.payments.clear()
    world.settings = replace(world.settings, findings=4)
    found = await world.compared()
    assert len(found.outcomes) == 4
    assert [gap.who for gap in found.gaps] == ["findings"]


async def test_more_entries_than_can_be_kept_make_gaps() -> None:
    world = World(300)
    world.settings = replace(world.settings, entries=100)
    world.sellers.lists["a"] = _forever(world)
    found = await world.compared()
    assert kinds(found) == []
    assert sorted(gap.who for gap in found.gaps) == ["a", PROVIDER]


async def test_what_happened_after_the_period_is_left_alone() -> None:
    world = World()
    young = replace(bought(5), created_at=PERIOD.until)
    world.books.books[young.request_id] = young
    world.provider.payments["auth_5"] = replace(_payment(young), state=PaymentState.AUTHORIZED)
    world.provider.payments["stray"] = replace(
        _payment(bought(6)), provider_id="stray", created_at=PERIOD.until
    )
    assert kinds(await world.compared()) == []


async def test_an_order_under_the_key_of_another_seller_is_none_of_ours() -> None:
    """What one seller says of another's key says nothing of the purchase."""
    world = World()
    ours = world.sellers.orders["a"][world.key]
    world.sellers.orders["b"] = {world.key: replace(ours, state=Cancelled())}
    assert kinds(await world.compared()) == []
    world.sellers.orders["b"] = {world.key: ours}
    found = await world.compared()
    assert [(o.finding.kind, o.finding.seller_id) for o in found.outcomes] == [
        (Kind.UNKNOWN_ORDER, "b")
    ]
