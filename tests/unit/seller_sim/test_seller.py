"""A seller's stock and its ledger agree, whatever is asked of it in whatever order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesh.money import Money
from seller_sim.domain.account import Account, Record
from seller_sim.domain.behaviour import Behaviour
from seller_sim.domain.catalogue import Book, Condition
from seller_sim.domain.records import (
    Cancelled,
    Closed,
    Confirmed,
    Hold,
    HoldRecord,
    HoldState,
    OrderRecord,
    Pending,
    Rejection,
)
from seller_sim.domain.seller import (
    CancelResult,
    HoldRequest,
    OrderRequest,
    QuoteRequest,
    Released,
    Seller,
    Unavailable,
)

BOOK = Book("b", "", "", base_minor=2_000, carried=1, copies=3)
# Which of the keys that are in use, or one that is not.
CHOICES = st.integers(0, 5)
SPARES = st.sampled_from([-1, 0, 0, 0, 300])
SECOND_US = 1_000_000

PLAIN = Behaviour(in_stock=1, used=0, quote_life_s=100, hold_life_s=60, pending_s=20)
MOODS = [
    PLAIN,
    replace(PLAIN, pending_rate=1),
    replace(PLAIN, pending_rate=1, pending_rejected_rate=1),
    replace(PLAIN, pending_rate=1, pending_rejected_rate=1, too_late_rate=1),
    replace(PLAIN, pending_rate=0.5, pending_rejected_rate=0.5, too_late_rate=0.5),
    replace(PLAIN, reprice_rate=0.5, reprice_by=0.1, too_late_rate=0.5),
]


class SellerMachine(RuleBasedStateMachine):
    """Asks for holds, orders, releases and cancels, lets time pass, and restarts the seller now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 1_795_367_838_000_000
        self.written: dict[tuple[type[Record], str], Record] = {}
        self.behaviour = PLAIN
        self.seed = 0
        self.seller = self._start()

    @initialize(mood=st.sampled_from(MOODS), seed=st.integers(0, 99))
    def open(self, mood: Behaviour, seed: int) -> None:
        self.behaviour = mood
        self.seed = seed
        self.seller = self._start()

    @rule(choice=CHOICES)
    def hold(self, choice: int) -> None:
        key = f"key-{choice + 6 * len(self.seller.account.holds)}"
        quote = self.seller.quote(QuoteRequest("b", "USD", [Condition.NEW]), self.now_us)
        if isinstance(quote, Unavailable):
            return
        assert key not in self.seller.account.holds
        request = HoldRequest(key, b"c", quote.quote_id, "b", self.now_us)
        decision = self.seller.hold(request, self.now_us)
        assert isinstance(decision.answer, Hold)
        self._write(decision.records)

    @rule(choice=CHOICES, hold_choice=CHOICES, spare=SPARES)
    def order(self, choice: int, hold_choice: int, spare: int) -> None:
        key = f"key-{choice + 6 * len(self.seller.account.orders)}"
        holds = [hold for hold in self.seller.account.holds.values() if hold.answer is not None]
        held = [hold for hold in holds if hold.at(self.now_us).state is HoldState.HELD]
        if key in self.seller.account.orders or not holds:
            return
        # Mostly from one that can be ordered from.
        candidates = held if held and hold_choice else holds
        hold = candidates[-1 - hold_choice % len(candidates)]
        assert isinstance(hold.answer, Hold)
        most = Money("USD", hold.answer.total.minor + spare)
        request = OrderRequest(
            key, b"c", hold.answer.hold_id, "", "b", "buyer", most, self.now_us + SECOND_US
        )
        decision = self.seller.order(request, self.now_us)
        live = hold.at(self.now_us).state is HoldState.HELD
        assert isinstance(decision.answer, Rejection) != (live and spare >= 0)
        if isinstance(decision.answer, Confirmed):
            assert decision.answer.total.minor <= most.minor
        self._write(decision.records)

    @rule(choice=CHOICES)
    def release(self, choice: int) -> None:
        key = self._key(self.seller.account.holds, choice)
        decision = self.seller.release(key, self.now_us)
        self._write(decision.records)
        again = self.seller.release(key, self.now_us)
        assert again.answer is decision.answer
        state = self.seller.account.holds[key].at(self.now_us).state
        assert state is not HoldState.HELD
        assert (decision.answer is Released.ORDERED) == (state is HoldState.ORDERED)

    @rule(choice=CHOICES)
    def cancel(self, choice: int) -> None:
        key = self._key(self.seller.account.orders, choice)
        decision = self.seller.cancel(key, self.now_us)
        assert decision is not None
        self._write(decision.records)
        again = self.seller.cancel(key, self.now_us)
        assert again is not None
        assert again.answer is decision.answer
        state = self.seller.account.orders[key].at(self.now_us).state
        match decision.answer:
            case CancelResult.CANCELLED:
                assert isinstance(state, Cancelled)
            case CancelResult.CLOSED:
                assert isinstance(state, Closed | Rejection)
            case CancelResult.TOO_LATE:
                assert isinstance(state, Confirmed | Pending)

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now_us += seconds * SECOND_US

    @rule()
    def restart(self) -> None:
        self.seller = self._start()

    @invariant()
    def no_more_copies_are_taken_than_there_are(self) -> None:
        assert 0 <= self._taken(self.seller.account) <= 3

    @invariant()
    def stock_is_what_the_records_say(self) -> None:
        records = [record.at(self.now_us) for record in self.written.values()]
        taking = [
            record
            for record in records
            if record.state is HoldState.HELD or isinstance(record.state, Confirmed | Pending)
        ]
        assert self._taken(self.seller.account) == len(taking)
        assert self._taken(Account(self.written.values())) == len(taking)

    @invariant()
    def every_order_came_from_a_hold_of_its_own(self) -> None:
        ordered = [
            record
            for record in self.written.values()
            if isinstance(record, HoldRecord) and record.state is HoldState.ORDERED
        ]
        accepted = [
            record
            for record in self.written.values()
            if isinstance(record, OrderRecord) and isinstance(record.answer, Confirmed | Pending)
        ]
        assert len(ordered) == len(accepted)

    @invariant()
    def an_order_that_was_too_late_to_cancel_stands_for_good(self) -> None:
        for record in self.written.values():
            if isinstance(record, OrderRecord) and record.too_late:
                assert isinstance(record.at(self.now_us + 3_600 * SECOND_US).state, Confirmed)

    @staticmethod
    def _key(records: Mapping[str, Record], choice: int) -> str:
        if records and choice:
            return list(records)[-1 - choice % len(records)]
        return f"early-{choice + 6 * len(records)}"

    def _start(self) -> Seller:
        return Seller(
            seed=self.seed,
            seller_id="shop",
            display_name="Shop",
            credential="secret",
            behaviour=self.behaviour,
            books={"b": BOOK},
            records=self.written.values(),
        )

    def _write(self, records: tuple[Record, ...]) -> None:
        self.written.update({(type(record), record.key): record for record in records})
        self.seller.account.apply(records)

    def _taken(self, account: Account) -> int:
        return account.taken("b", Condition.NEW, self.now_us)


TestSeller = SellerMachine.TestCase
TestSeller.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
