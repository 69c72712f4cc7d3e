"""I1 to I12 of the design, each by itself, and two rules besides: what is sent in time, and by whom.

The rules are judged as a request leaves a process. I1 to I6 at every step: at each effect on the other side and at each
change of our books. I7 to I12 once nothing is under way any more. Each gives what is wrong, in words, or None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from mesh.money import Money
from orchestrator.domain.events import Collected, Finished, Step, StepName
from orchestrator.domain.flags import Invariant
from orchestrator.domain.observations import Decision
from orchestrator.domain.purchase import (
    AuthorizationState,
    Purchase,
    Stage,
    Status,
)
from orchestrator.domain.saga import MOST_TRIES_AT_A_SELLER, Limits
from orchestrator.ports import Commit, PaymentState, Refused
from sellers.model import Confirmed, TooLate
from tests.simulation.ledgers import (
    PROVIDER,
    Collection,
    Effect,
    KeyReused,
    OrderState,
    ProviderLedger,
    SellerLedger,
    Sent,
)
from tests.simulation.ours import OurRow

OVER = frozenset({Stage.DONE, Stage.FLAGGED})

_RESTING = frozenset({Stage.RELEASE, Stage.OFFER, Stage.DONE})
_NEXT_SELLER = frozenset({Stage.HOLD, Stage.ORDER, Stage.REQUOTE, Stage.COLLECT, Stage.VOID})
_CHECKS = frozenset({Stage.CHECK_ORDER, Stage.CHECK_PAYMENT})

EDGES: dict[Stage, frozenset[Stage]] = {
    Stage.AUTHORIZE: frozenset({Stage.SETTLE_AUTHORIZATION, Stage.COLLECT, Stage.DONE}),
    Stage.SETTLE_AUTHORIZATION: frozenset({Stage.VOID, Stage.DONE}),
    Stage.COLLECT: _NEXT_SELLER,
    Stage.REQUOTE: _NEXT_SELLER,
    Stage.HOLD: _NEXT_SELLER,
    Stage.ORDER: _NEXT_SELLER | {Stage.RESOLVE_ORDER, Stage.CAPTURE, Stage.CANCEL_ORDER},
    Stage.RESOLVE_ORDER: _NEXT_SELLER | {Stage.CAPTURE, Stage.CANCEL_ORDER},
    Stage.CAPTURE: frozenset({Stage.RELEASE, Stage.DONE, Stage.CANCEL_ORDER}),
    Stage.CANCEL_ORDER: _NEXT_SELLER | _RESTING | {Stage.FLAGGED},
    Stage.VOID: _RESTING | {Stage.FLAGGED},
    Stage.RELEASE: _RESTING | _CHECKS | {Stage.FLAGGED},
    Stage.OFFER: _CHECKS | {Stage.DONE},
    Stage.DONE: _CHECKS,
    Stage.CHECK_ORDER: _RESTING | {Stage.CANCEL_ORDER, Stage.REFUND, Stage.FLAGGED},
    Stage.CHECK_PAYMENT: _RESTING | {Stage.VOID, Stage.FLAGGED},
    Stage.SETTLE_PAYMENT: _RESTING | {Stage.VOID, Stage.FLAGGED},
    Stage.REFUND: _RESTING | {Stage.FLAGGED},
    Stage.FLAGGED: frozenset(Stage),
}
"""From which stage a purchase may come to which. It may stay in any, and stop in any when its workers keep failing; an
operator may send a flagged one anywhere."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold."""

    invariant: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


@dataclass(frozen=True, slots=True)
class Change:
    """Our books before and after an operation of the store; ``commit`` is the worker's, when it was one."""

    before: OurRow | None
    after: OurRow
    commit: Commit | None


@dataclass(slots=True)
class Seen:
    """What was seen of one purchase so far.

    Attributes:
        row: as it stands in our books.
        intents: all effects that were ever committed to, as ``intent_of`` gives them.
        releases: all releases that were ever committed to: seller and key.
        latest_answers: the latest answer of a seller to an order, or about one, by its key.
        known: the totals that are known of sellers that were not tried since.
        ordering: under which epoch an order was first committed to, by its key.
        ordered: the keys of orders that were sent, or may have been.

    """

    row: OurRow | None = None
    intents: set[tuple[object, ...]] = field(default_factory=set)
    releases: set[tuple[str, str]] = field(default_factory=set)
    latest_answers: dict[str, object] = field(default_factory=dict)
    known: dict[str, Money] = field(default_factory=dict)
    ordering: dict[str, int] = field(default_factory=dict)
    ordered: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Ledgers:
    """The other side, and what was seen."""

    sellers: dict[str, SellerLedger]
    provider: ProviderLedger
    collections: dict[str, Collection]
    limits: Limits
    may_flag: frozenset[str]
    wishes: frozenset[str]
    seen: dict[UUID, Seen]


# As a request leaves


def in_time_nothing_is_sent_after_not_after(ledgers: Ledgers, sent: Sent) -> str | None:
    """No hold and no order leaves after its not_after, save to a seller that cannot be asked and so must heed it."""
    if sent.name not in {"hold", "order"} or sent.attempt is None:
        return None
    seller = ledgers.sellers[sent.attempt.seller_id]
    late_s = seller.now_after(sent.attempt.not_after)
    late = late_s > 0 and seller.script.answers
    return f"{sent.name} {sent.attempt.key} left {late_s:.3f} s after not_after" if late else None


def lease_outlasts_what_is_sent(_ledgers: Ledgers, sent: Sent) -> str | None:
    """Nobody asks for an effect whose lease may end before the answer: somebody else may be at it by then.

    A refund begins with the question how the payment stands: when the process stands still between the two, that is as
    when it stands still before it sends, which no look at the lease can prevent.
    """
    if sent.lease_left_s >= sent.takes_s or sent.name == "refund":
        return None
    return f"{sent.name} left with {sent.lease_left_s:.3f} s of a lease, and may take {sent.takes_s:g} s"


def unsent_needs_no_closing(ledgers: Ledgers, sent: Sent) -> str | None:
    """No worker closes the key of an order that it has committed to itself and never sent: it goes on at once."""
    seen = ledgers.seen[sent.request_id]
    if sent.name != "cancel" or sent.attempt is None or seen.row is None:
        return None
    key, epoch = sent.attempt.key, seen.row.purchase.epoch
    if key in seen.ordered or seen.ordering.get(key) != epoch:
        return None
    return f"{key} is closed, under which nothing was ever sent"


AT_SENDING: dict[str, Callable[[Ledgers, Sent], str | None]] = {
    "in time": in_time_nothing_is_sent_after_not_after,
    "lease": lease_outlasts_what_is_sent,
    "unsent": unsent_needs_no_closing,
}


# At every effect


def i1_capture_after_confirmation(ledgers: Ledgers, effect: Effect) -> str | None:
    """No capture unless the seller's latest answer is *confirmed*."""
    if effect.name != "capture" or not effect.done:
        return None
    seen = ledgers.seen[effect.request_id]
    attempt = seen.row.purchase.attempt if seen.row else None
    latest = seen.latest_answers.get(attempt.key) if attempt else None
    if isinstance(latest, TooLate):
        latest = latest.order
    return None if isinstance(latest, Confirmed) else f"captured when the seller said {latest}"


def i2_one_live_order_and_hold(ledgers: Ledgers, effect: Effect) -> str | None:
    """At most one live order per purchase over all sellers, and at most one hold without a committed release."""
    if effect.party == PROVIDER:
        return None
    released = ledgers.seen[effect.request_id].releases
    orders = [
        f"{seller.seller_id} {order.total}"
        for seller in ledgers.sellers.values()
        for order in seller.live_orders(effect.request_id)
    ]
    if len(orders) > 1:
        return f"{len(orders)} live orders: {', '.join(orders)}"
    holds = [
        key
        for seller in ledgers.sellers.values()
        for key in seller.live_holds(effect.request_id)
        if (seller.seller_id, key) not in released
    ]
    return f"{len(holds)} holds: {', '.join(holds)}" if len(holds) > 1 else None


def i3_one_capture_of_the_orders_total(ledgers: Ledgers, effect: Effect) -> str | None:
    """At most one capture, of the order's total: at most what was agreed with the seller, authorized, max_price."""
    if effect.name != "capture" or not effect.done:
        return None
    entries = ledgers.provider.of(effect.request_id)
    captures = sum(entry.captures for entry in entries)
    if captures > 1:
        return f"{captures} captures"
    captured = sum(entry.captured for entry in entries)
    authorized = sum(entry.authorized for entry in entries if entry.captures)
    row = ledgers.seen[effect.request_id].row
    if row is None or not captured <= authorized <= row.purchase.max_price.minor:
        return f"captured {captured} of {authorized} authorized"
    attempt = row.purchase.attempt
    if attempt is None or captured > attempt.agreed.minor:
        return f"captured {captured}, which was never agreed: {attempt}"
    totals = [
        order.total
        for seller in ledgers.sellers.values()
        for order in seller.live_orders(effect.request_id)
        if order.total is not None
    ]
    charged = Money(row.purchase.max_price.currency, captured)
    return None if totals == [charged] else f"captured {charged}, the order's total is {totals}"


def i5_no_effect_without_intent(ledgers: Ledgers, effect: Effect) -> str | None:
    """No effect without a committed intent: its key, its source and its amount stand in our books before."""
    if isinstance(effect.answer, KeyReused):
        return f"{effect.name} under {effect.key}, which was used for something else"
    if effect.name == "get_order":
        return None
    seen = ledgers.seen.get(effect.request_id)
    # How much was charged, and is given back, only the provider knows.
    amount = None if effect.name == "refund" else effect.amount
    asked = (effect.name, effect.party, effect.key, amount, effect.source)
    if effect.name == "release":
        committed = seen is not None and (effect.party, effect.key) in seen.releases
    else:
        committed = seen is not None and asked in seen.intents
    return None if committed else f"{' '.join(map(str, asked))} was not committed to"


def i10_no_more_given_back_than_charged(ledgers: Ledgers, effect: Effect) -> str | None:
    """Nobody asks the provider to give back more than is left of what was charged."""
    if effect.name != "refund" or not isinstance(effect.answer, Refused):
        return None
    [entry] = ledgers.provider.of(effect.request_id)
    left = entry.captured - entry.refunded
    return f"{effect.amount} was asked back, when {left} of {entry.captured} was left"


AT_EFFECTS: dict[str, Callable[[Ledgers, Effect], str | None]] = {
    "I1": i1_capture_after_confirmation,
    "I2": i2_one_live_order_and_hold,
    "I3": i3_one_capture_of_the_orders_total,
    "I5": i5_no_effect_without_intent,
    "I10": i10_no_more_given_back_than_charged,
}


# At every change of our books


def i4_allowed_edges(ledgers: Ledgers, change: Change) -> str | None:
    """A final status never changes; only allowed edges; the epoch only grows, and only its holder commits."""
    if change.before is None:
        return None
    before, after = change.before.purchase, change.after.purchase
    commit = change.commit
    if commit is not None and commit.purchase.request_id != before.request_id:
        commit = None
    finals = sum(isinstance(recorded.event, Finished) for recorded in change.after.events)
    wrong = []
    if before.status not in (Status.PENDING, after.status):
        wrong.append(f"{before.status.value} became {after.status.value}")
    if after.stage not in (before.stage, Stage.FLAGGED, *EDGES[before.stage]):
        wrong.append(f"{before.stage.value} led to {after.stage.value}")
    if after.epoch < before.epoch:
        wrong.append(f"epoch {before.epoch} became {after.epoch}")
    if commit is not None and commit.purchase.epoch != before.epoch:
        wrong.append(f"a commit of another epoch was accepted at {before.epoch}")
    if len(change.after.events) < len(change.before.events):
        wrong.append("events are gone")
    if finals != (after.status is not Status.PENDING):
        wrong.append(f"{finals} final events in status {after.status.value}")
    return "; ".join(wrong) or None


def i6_in_order_of_known_total(ledgers: Ledgers, change: Change) -> str | None:
    """Sellers are tried in order of known total: none that is known to be cheaper is passed over."""
    before = change.before.purchase.attempt if change.before else None
    after = change.after.purchase.attempt
    if after is None or before is after or before == after:
        return None
    begun = before is None or before.number != after.number
    agreed = before is not None and before.hold_id is None and after.hold_id is not None
    if not (begun or (agreed and change.after.purchase.stage is Stage.ORDER)):
        return None
    plan = change.after.purchase.plan
    age_s = ledgers.sellers[after.seller_id].now_after(change.after.purchase.created_at)
    seen = ledgers.seen[change.after.purchase.request_id]
    cheaper = [
        f"{seller_id} {total}"
        for seller_id, total in seen.known.items()
        if seller_id != after.seller_id
        and (total.minor, seller_id) < (after.agreed.minor, after.seller_id)
        and plan.tries_at(seller_id) < MOST_TRIES_AT_A_SELLER
        and not ledgers.sellers[seller_id].vanished
        and (not ledgers.sellers[seller_id].script.with_holds or age_s <= ledgers.limits.hold_by_s)
    ]
    if cheaper:
        return f"tried {after.seller_id} at {after.agreed} before {', '.join(cheaper)}"
    return None


def i5_no_order_after_a_cancel(ledgers: Ledgers, change: Change) -> str | None:
    """The intent to order is the point of no return: it is not committed after the customer's cancel."""
    if change.before is None or not change.before.purchase.cancel_requested:
        return None
    new = _intents(change.after) - _intents(change.before)
    orders = [intent for intent in new if intent[0] == "order"]
    return f"{orders} was committed to after the cancel" if orders else None


def answer_is_of_sellers(ledgers: Ledgers, change: Change) -> str | None:
    """Nothing is said of prices and stock before at least one seller, and at least half of them, have answered."""
    purchase = change.after.purchase
    if purchase.status not in {Status.NOT_AVAILABLE, Status.PRICE_NOT_MET}:
        return None
    if change.before is None or change.before.purchase.status is purchase.status:
        return None
    told = max(
        ledgers.collections[recorded.event.collection_id].answered
        for recorded in change.after.events
        if isinstance(recorded.event, Collected)
    )
    asked = len(ledgers.sellers)
    few = told == 0 or (purchase.status is Status.NOT_AVAILABLE and told < asked - told)
    return f"{purchase.status.value}, when {told} of {asked} had answered" if few else None


def in_time_nothing_is_begun_too_late(ledgers: Ledgers, change: Change) -> str | None:
    """No hold is begun after 14 s, no order after 17 s of a purchase: by when it was decided."""
    purchase = change.after.purchase
    if purchase.stage not in _BEGINNING or purchase.attempt is None:
        return None
    before = _intents(change.before) if change.before else set()
    begun = [intent for intent in _intents(change.after) - before if intent[0] in _BEGUN_BY]
    if not begun:
        return None
    name = str(begun[0][0])
    by_s = _BEGUN_BY[name](ledgers.limits)
    age_s = (purchase.attempt.not_after - purchase.created_at).total_seconds()
    age_s -= ledgers.limits.not_after_s
    return f"{name} was decided at {age_s:.3f} s, after {by_s:g} s" if age_s > by_s else None


_BEGINNING = frozenset({Stage.HOLD, Stage.ORDER})

_BEGUN_BY: dict[object, Callable[[Limits], float]] = {
    "hold": lambda limits: limits.hold_by_s,
    "order": lambda limits: limits.order_by_s,
}

AT_CHANGES: dict[str, Callable[[Ledgers, Change], str | None]] = {
    "I4": i4_allowed_edges,
    "I5": i5_no_order_after_a_cancel,
    "I6": i6_in_order_of_known_total,
    "answer": answer_is_of_sellers,
    "in time": in_time_nothing_is_begun_too_late,
}


# Once things are quiet


def i7_final_or_flagged(ledgers: Ledgers, row: OurRow) -> str | None:
    """Every purchase is final or flagged for an operator, within a bound, and a flag names the invariant in doubt."""
    purchase = row.purchase
    flagged = {flag.invariant.value for flag in row.flags}
    if not flagged <= ledgers.may_flag:
        return f"flagged for nothing: {'; '.join(flag.detail for flag in row.flags)}"
    if purchase.stage is Stage.FLAGGED:
        return None if flagged else "flagged, but no flag says why"
    if asked_on(row):
        return None
    if purchase.status is Status.PENDING or purchase.stage is not Stage.DONE:
        return f"{purchase.status.value} in {purchase.stage.value} after {purchase.tries} tries"
    return "the payment token is still kept" if row.has_token else None


def asked_on(row: OurRow) -> bool:
    """Say whether an operator was told that a purchase does not end, while it is tried on."""
    return row.purchase.status is Status.PENDING and any(
        flag.invariant is Invariant.ENDS for flag in row.flags
    )


def i8_purchased_is_ordered_is_captured(ledgers: Ledgers, row: OurRow) -> str | None:
    """Unflagged: purchased ⇔ one live order ⇔ one capture. What was given back counts as not captured."""
    purchase = row.purchase
    refunded = purchase.authorization.state is AuthorizationState.REFUNDED
    purchased = purchase.status is Status.PURCHASED and not refunded
    sellers = ledgers.sellers.values()
    orders = sum(len(seller.live_orders(purchase.request_id)) for seller in sellers)
    entries = ledgers.provider.of(purchase.request_id)
    captures = sum(entry.captures for entry in entries if entry.refunded < entry.captured)
    if (orders, captures) == ((1, 1) if purchased else (0, 0)):
        return None
    return f"{purchase.status.value}, {orders} live orders, {captures} captures"


def i9_otherwise_nothing_is_left(ledgers: Ledgers, row: OurRow) -> str | None:
    """Unflagged and not purchased: no order, no hold, the authorization void or expired. Purchased: no hold."""
    request_id = row.purchase.request_id
    holds = [k for seller in ledgers.sellers.values() for k in seller.live_holds(request_id)]
    if holds:
        return f"{row.purchase.status.value}, but held: {', '.join(holds)}"
    if row.purchase.status is Status.PURCHASED:
        return None
    if any(seller.live_orders(request_id) for seller in ledgers.sellers.values()):
        return f"{row.purchase.status.value}, but ordered"
    reserved = [
        entry.provider_id
        for entry in ledgers.provider.of(request_id)
        if entry.state is PaymentState.AUTHORIZED
    ]
    return f"{row.purchase.status.value}, but reserved: {', '.join(reserved)}" if reserved else None


def i10_money_adds_up(ledgers: Ledgers, row: OurRow) -> str | None:
    """Authorized = captured + released."""
    for entry in ledgers.provider.of(row.purchase.request_id):
        if entry.authorized != entry.captured + entry.released:
            return f"{entry.authorized} is not {entry.captured} + {entry.released}"
    return None


def i11_told_once(ledgers: Ledgers, row: OurRow) -> str | None:
    """One outbox row per purchase and kind: one when it is final, one when it was refunded."""
    expected = []
    if row.purchase.status is not Status.PENDING:
        expected.append("final")
    if row.purchase.authorization.state is AuthorizationState.REFUNDED:
        expected.append("refunded")
    outbox = sorted(row.outbox)
    return None if outbox == expected else f"the outbox has {outbox}, not {expected}"


def i12_ledgers_are_equal(ledgers: Ledgers, row: OurRow) -> str | None:
    """The provider's and the sellers' ledgers equal ours."""
    return payment_disagrees(ledgers, row) or order_disagrees(ledgers, row)


def payment_disagrees(ledgers: Ledgers, row: OurRow) -> str | None:
    """Say in what the provider's ledger and ours differ."""
    theirs = [
        (entry.provider_id, entry.state, entry.captured, entry.refunded)
        for entry in ledgers.provider.of(row.purchase.request_id)
    ]
    ours = row.purchase.authorization
    captured = ours.captured.minor if ours.captured else 0
    refunded = ours.refunded.minor if ours.refunded else 0
    state = _AT_PROVIDER[ours.state]
    expected = [(ours.provider_id, state, captured, refunded)] if state is not None else []
    at_rest = row.purchase.status is not Status.PENDING
    left = at_rest and any(state is PaymentState.AUTHORIZED for _, state, _, _ in theirs)
    return f"the provider has {theirs}, we have {expected}" if left or theirs != expected else None


def order_disagrees(ledgers: Ledgers, row: OurRow) -> str | None:
    """Say in what the sellers' ledgers and ours differ."""
    purchase = row.purchase
    bought = {
        (seller.seller_id, key, order.order_id, order.total)
        for seller in ledgers.sellers.values()
        for key, order in seller.orders.items()
        if order.state is OrderState.CONFIRMED and key.startswith(str(purchase.request_id))
    }
    closed = Step(StepName.RESOLVED, reason=Decision.CLOSE.value)
    over = purchase.authorization.state is AuthorizationState.REFUNDED or any(
        recorded.event == closed for recorded in row.events
    )
    kept = {
        (attempt.seller_id, attempt.key, attempt.order_id, attempt.charged)
        for attempt in row.attempts.values()
        if attempt.outcome == "confirmed" and not over
    }
    return None if bought == kept else f"sellers have {bought}, we have {kept}"


_AT_PROVIDER: dict[AuthorizationState, PaymentState | None] = {
    AuthorizationState.INTENDED: None,
    AuthorizationState.DECLINED: None,
    AuthorizationState.AUTHORIZED: PaymentState.AUTHORIZED,
    AuthorizationState.CAPTURED: PaymentState.CAPTURED,
    AuthorizationState.VOIDED: PaymentState.VOIDED,
    AuthorizationState.REFUNDED: PaymentState.CAPTURED,
}

ONCE_QUIET: dict[str, Callable[[Ledgers, OurRow], str | None]] = {
    "I7": i7_final_or_flagged,
    "I8": i8_purchased_is_ordered_is_captured,
    "I9": i9_otherwise_nothing_is_left,
    "I10": i10_money_adds_up,
    "I11": i11_told_once,
    "I12": i12_ledgers_are_equal,
}

_ALSO_OF_FLAGGED = frozenset({"I7", "I11"})


def judge_quiet(ledgers: Ledgers, rows: dict[UUID, OurRow]) -> Iterator[Violation]:
    """Judge everything at the end."""
    for request_id, row in rows.items():
        flagged = bool(row.flags)
        for name, invariant in ONCE_QUIET.items():
            if flagged and name not in _ALSO_OF_FLAGGED:
                continue
            message = invariant(ledgers, row)
            if message is not None:
                yield Violation(name, f"{request_id}: {message}")
    for wish in ledgers.wishes - {row.purchase.customer_id for row in rows.values()}:
        yield Violation("I7", f"the wish of {wish} was forgotten")
    offers = [row.purchase.accepted_offer_of for row in rows.values()]
    made = Counter(
        (row.purchase.customer_id, offer) for row, offer in zip(rows.values(), offers, strict=True)
    )
    for (customer_id, offer), number in made.items():
        if number > 1:
            what = f"the offer of {offer}" if offer else "one wish"
            yield Violation("I5", f"{number} purchases of {customer_id} for {what}")
    for entry in ledgers.provider.authorizations.values():
        if entry.reference not in rows:
            yield Violation("I12", f"{entry.provider_id} is of no purchase of ours")


# What was seen


def note(ledgers: Ledgers, change: Change) -> None:
    """Take a change of our books into what was seen, after it was judged."""
    row = change.after
    seen = ledgers.seen.setdefault(row.purchase.request_id, Seen())
    seen.row = row
    purchase = row.purchase
    if purchase.stage is Stage.ORDER and purchase.attempt is not None:
        seen.ordering.setdefault(purchase.attempt.key, purchase.epoch)
    seen.intents |= _intents(row)
    seen.releases |= {(release.seller_id, release.key) for release in row.purchase.plan.releases}
    _note_totals(ledgers, change, seen)


def note_sent(ledgers: Ledgers, sent: Sent) -> None:
    """Note that a request was sent, or may have been."""
    if sent.name == "order" and sent.attempt is not None:
        ledgers.seen[sent.request_id].ordered.add(sent.attempt.key)


def note_answer(ledgers: Ledgers, effect: Effect) -> None:
    """Keep the latest answer about an order."""
    if effect.name in {"order", "get_order", "cancel"} and effect.request_id in ledgers.seen:
        ledgers.seen[effect.request_id].latest_answers[effect.key] = effect.answer


def _intents(row: OurRow) -> set[tuple[object, ...]]:
    """Give the effects that a purchase is committed to as it stands, each as an ``Effect`` names it."""
    purchase = row.purchase
    if purchase.stage in _PAYMENTS:
        name, amount_of = _PAYMENTS[purchase.stage]
        return {(name, PROVIDER, f"{purchase.request_id}:{name}", amount_of(purchase), None)}
    attempt = purchase.attempt
    if attempt is None:
        return set()
    party, key = attempt.seller_id, attempt.key
    match purchase.stage:
        case Stage.HOLD:
            return {("hold", party, key, None, attempt.quote_id)}
        case Stage.ORDER:
            return {("order", party, key, attempt.agreed, attempt.hold_id or attempt.quote_id)}
        case Stage.RESOLVE_ORDER | Stage.CANCEL_ORDER:
            return {("cancel", party, key, None, None)}
        case _:
            return set()


_PAYMENTS: dict[Stage, tuple[str, Callable[[Purchase], Money | None]]] = {
    Stage.AUTHORIZE: ("authorize", lambda purchase: purchase.max_price),
    Stage.SETTLE_AUTHORIZATION: ("authorize", lambda purchase: purchase.max_price),
    Stage.CAPTURE: (
        "capture",
        lambda purchase: purchase.attempt.charged if purchase.attempt else None,
    ),
    Stage.VOID: ("void", lambda _purchase: None),
    Stage.REFUND: ("refund", lambda _purchase: None),
}


def _note_totals(ledgers: Ledgers, change: Change, seen: Seen) -> None:
    """Keep the totals that are known: from collections, holds, refusals and questions; less those that were tried."""
    old = len(change.before.events) if change.before else 0
    purchase = change.after.purchase
    most = purchase.max_price.minor
    for recorded in change.after.events[old:]:
        match recorded.event:
            case Collected(collection_id):
                seen.known = {
                    candidate.seller_id: candidate.total
                    for candidate in ledgers.collections[collection_id].found
                    if candidate.total.minor <= most
                }
            case Step(StepName.HELD, str() as seller_id, Money() as total):
                if total.minor <= most:
                    seen.known[seller_id] = total
            case Step(StepName.HOLDING | StepName.ORDERING, str() as seller_id):
                seen.known.pop(seller_id, None)
            case _:
                pass
    before = change.before.purchase if change.before else None
    if before is not None and before.stage is Stage.REQUOTE:
        seller_id = before.plan.candidates[0].seller_id
        if all(candidate.seller_id != seller_id for candidate in purchase.plan.candidates):
            seen.known.pop(seller_id, None)
