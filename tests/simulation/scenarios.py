"""Who sells what at which price, and what the customers do."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from orchestrator.domain.purchase import Status
from orchestrator.domain.saga import Limits
from tests.simulation import hands
from tests.simulation.faults import Fault
from tests.simulation.hands import Act, Hand, Operator
from tests.simulation.ledgers import ProviderScript, SellerScript


@dataclass(frozen=True, slots=True)
class Wish:
    """What a customer asks for, one each.

    Attributes:
        customer_id: who.
        max_price: the most to pay, in minor units.
        after_s: when, in seconds.
        cancels_after_s: how long after that they cancel.
        accepts: whether they accept the offer, if there is one.

    """

    customer_id: str = "alice"
    max_price: int = 3000
    after_s: float = 0.0
    cancels_after_s: float | None = None
    accepts: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A small world.

    Attributes:
        name: for schedules and the table.
        sellers: by id, in the order of ids.
        expected: the statuses of the wishes when there are no faults.
        provider: how it behaves.
        wishes: what the customers ask for.
        events: what else may happen at any crossing.
        limits: the clock of purchases.
        acts: what is done by hand.
        reconciled: whether the books are compared whenever all is quiet.
        operator: who decides about flagged purchases; nobody when None.
        may_flag: the invariants for which an operator may be called, whatever happens.
        told: whether the customers have an endpoint for webhooks, and each process a notifier.
        busy_for: how many messages that endpoint turns away before it takes one.
        lease_s: how long a worker's claim holds without renewal, in seconds.
        submitting: whether faults while it is submitted are tried in pairs too. What follows from them does not depend
            on sellers and prices, so one scenario of each way to submit is enough.

    """

    name: str
    sellers: dict[str, SellerScript]
    expected: tuple[Status, ...]
    provider: ProviderScript = field(default_factory=ProviderScript)
    wishes: tuple[Wish, ...] = (Wish(),)
    events: tuple[Fault, ...] = ()
    limits: Limits = field(default_factory=lambda: Limits(offer_life_s=20.0))
    acts: tuple[Act, ...] = ()
    reconciled: bool = False
    operator: Operator | None = None
    may_flag: frozenset[str] = frozenset()
    told: bool = False
    busy_for: int = 0
    lease_s: float = 15.0
    submitting: bool = False


_BOUGHT = (Status.PURCHASED,)
_HOLDS = SellerScript(2000)
_ATOMIC = SellerScript(2000, with_holds=False)
_CARELESS = SellerScript(2000, with_holds=False, honours_not_after=False)
_NOT_CLOSABLE = SellerScript(2000, with_holds=False, closable=False)
_DEARER = SellerScript(2500)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("hold", {"a": _HOLDS}, _BOUGHT),
        Scenario("atomic", {"a": _ATOMIC}, _BOUGHT, events=(Fault.DRAIN,), submitting=True),
        Scenario(
            "two_careless_sellers",
            {"a": _CARELESS, "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
        ),
        Scenario(
            "no_cancel_before_order",
            {"a": _NOT_CLOSABLE, "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
        ),
        Scenario(
            "careless_and_not_closable",
            {
                "a": SellerScript(2000, with_holds=False, closable=False, honours_not_after=False),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
            limits=Limits(overdue_s=60.0),
            may_flag=frozenset({"I7"}),
        ),
        Scenario(
            "in_flight",
            {
                "a": SellerScript(2000, with_holds=False, in_flight_s=0.4),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
        ),
        Scenario(
            "first_sold_out", {"a": SellerScript(2000, sells_out=True), "b": _DEARER}, _BOUGHT
        ),
        Scenario("hold_costs_more", {"a": SellerScript(2000, hold=2600), "b": _DEARER}, _BOUGHT),
        Scenario(
            "costs_less",
            {"a": SellerScript(2000, hold=1900, order=1800), "b": _DEARER},
            _BOUGHT,
            limits=Limits(hold_by_s=4.0, order_by_s=5.5),
        ),
        Scenario(
            "order_costs_less", {"a": SellerScript(2000, order=1800, with_holds=False)}, _BOUGHT
        ),
        Scenario(
            "order_costs_more",
            {"a": SellerScript(2000, order=2300, with_holds=False), "b": _DEARER},
            _BOUGHT,
        ),
        Scenario(
            "charges_in_another_currency",
            {
                "a": SellerScript(2000, order=1900, with_holds=False, charges_in="EUR"),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
        ),
        Scenario(
            "holds_in_another_currency",
            {"a": SellerScript(2000, charges_in="EUR"), "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
        ),
        Scenario(
            "counters_in_another_currency",
            {
                "a": SellerScript(
                    2000,
                    with_holds=False,
                    charges_in="EUR",
                    pending_s=0.2,
                    retry_after_s=0.3,
                    rejects_in_the_end=True,
                    counters=1500,
                ),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
        ),
        Scenario(
            "vanishes",
            {"a": SellerScript(2000, gone_for_s=30.0), "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
            events=(Fault.VANISH,),
        ),
        Scenario(
            "disabled_for_good",
            {
                "a": SellerScript(2000, with_holds=False, gone_for_s=inf),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
            events=(Fault.VANISH,),
            limits=Limits(overdue_s=60.0),
            may_flag=frozenset({"I7"}),
        ),
        Scenario(
            "limits_shrink",
            {"a": SellerScript(2000, shrinks_to=1), "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
            events=(Fault.SHRINK,),
        ),
        Scenario("quote_expires", {"a": SellerScript(2000, quote_life_s=0.9)}, _BOUGHT),
        Scenario("hold_expires", {"a": SellerScript(2000, hold_life_s=3.0), "b": _DEARER}, _BOUGHT),
        Scenario("hold_too_dear", {"a": SellerScript(2000, hold=3100)}, (Status.PRICE_NOT_MET,)),
        Scenario("pending_confirmed", {"a": SellerScript(2000, pending_s=1.5)}, _BOUGHT),
        Scenario(
            "pending_rejected",
            {"a": SellerScript(2000, pending_s=1.5, rejects_in_the_end=True), "b": _DEARER},
            _BOUGHT,
        ),
        Scenario(
            "lease_renewed",
            {"a": SellerScript(2000, with_holds=False, pending_s=7.5, retry_after_s=2.0)},
            _BOUGHT,
            lease_s=7.0,
        ),
        Scenario(
            "pending_for_long",
            {"a": SellerScript(2000, pending_s=60.0, retry_after_s=2.0)},
            (Status.FAILED,),
            limits=Limits(pending_until_s=3.0),
        ),
        Scenario(
            "capture_refused",
            {"a": _HOLDS},
            (Status.FAILED,),
            provider=ProviderScript(refuses_capture=True),
        ),
        Scenario(
            "capture_refused_for_good",
            {"a": SellerScript(2000, cancels=False)},
            (Status.PENDING,),
            provider=ProviderScript(refuses_capture=True),
            may_flag=frozenset({"I8"}),
        ),
        Scenario(
            "authorization_ends_soon",
            {"a": _HOLDS},
            (Status.FAILED,),
            provider=ProviderScript(expires_s=3600.0),
        ),
        Scenario(
            "recalled",
            {"a": _ATOMIC},
            _BOUGHT,
            acts=(Act("capture", Hand.RECALL),),
            reconciled=True,
        ),
        Scenario(
            "recalled_partly_refunded",
            {"a": _ATOMIC},
            _BOUGHT,
            acts=(Act("capture", Hand.GIVE_BACK_PART), Act("capture", Hand.RECALL)),
            reconciled=True,
            operator=hands.gives_the_rest_back,
        ),
        Scenario(
            "partly_refunded_by_hand",
            {"a": _ATOMIC},
            _BOUGHT,
            acts=(Act("capture", Hand.GIVE_BACK_PART, told=True),),
            reconciled=True,
            operator=hands.settles,
        ),
        Scenario(
            "refunded_by_hand",
            {"a": _ATOMIC},
            _BOUGHT,
            acts=(Act("capture", Hand.GIVE_BACK, told=True),),
            reconciled=True,
            operator=hands.settles,
        ),
        Scenario(
            "charged_by_hand",
            {"a": SellerScript(3500)},
            (Status.PRICE_NOT_MET,),
            acts=(Act("authorize", Hand.CHARGE, in_s=0.0),),
            operator=hands.refunds,
            told=True,
        ),
        Scenario(
            "told_of_the_payment",
            {"a": _ATOMIC, "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
            acts=(
                # Just before the order is committed to, and once it was sent.
                Act("authorize", Hand.TELL, in_s=0.015, told=True),
                Act("order", Hand.TELL, in_s=1.0, told=True),
            ),
        ),
        Scenario(
            "operator_retries",
            {"a": _CARELESS, "b": SellerScript(2500, with_holds=False)},
            _BOUGHT,
            events=(Fault.WEAR_OUT, Fault.CANCEL),
            operator=hands.retries,
        ),
        Scenario(
            "operator_asks_the_seller",
            {"a": SellerScript(2000, with_holds=False, pending_s=1.0), "b": _DEARER},
            _BOUGHT,
            events=(Fault.WEAR_OUT,),
            operator=hands.asks_the_seller,
        ),
        Scenario(
            "operator_has_it_cancelled",
            {"a": SellerScript(2000, with_holds=False, cancels=False)},
            (Status.FAILED,),
            provider=ProviderScript(refuses_capture=True),
            operator=hands.has_it_cancelled,
        ),
        Scenario(
            "operator_charges",
            {"a": SellerScript(2000, with_holds=False, cancels=False)},
            _BOUGHT,
            provider=ProviderScript(refuses_capture=True),
            operator=hands.charges,
        ),
        Scenario(
            "operator_writes_it_off",
            {"a": SellerScript(2000, with_holds=False, cancels=False)},
            (Status.FAILED,),
            provider=ProviderScript(refuses_capture=True),
            reconciled=True,
            operator=hands.writes_it_off,
        ),
        Scenario(
            "overcharges",
            {
                "a": SellerScript(2000, order=2900, with_holds=False, heeds_max_total=False),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
        ),
        Scenario(
            "overcharges_for_good",
            {"a": SellerScript(2000, order=2900, heeds_max_total=False, cancels=False)},
            (Status.PENDING,),
            may_flag=frozenset({"I8"}),
        ),
        Scenario(
            "unsearchable",
            {
                "a": SellerScript(2000, with_holds=False, answers=False),
                "b": SellerScript(2500, with_holds=False),
            },
            _BOUGHT,
        ),
        Scenario("cancel", {"a": _HOLDS, "b": _DEARER}, _BOUGHT, events=(Fault.CANCEL,)),
        Scenario("cancel_atomic", {"a": _ATOMIC}, _BOUGHT, events=(Fault.CANCEL,)),
        Scenario(
            "cancel_by_call",
            {"a": _HOLDS},
            (Status.CANCELLED,),
            wishes=(Wish(cancels_after_s=0.02),),
        ),
        Scenario(
            "accept_offer",
            {"a": SellerScript(3500, with_holds=False)},
            (Status.PRICE_NOT_MET, *_BOUGHT),
            wishes=(Wish(accepts=True),),
            submitting=True,
        ),
        Scenario(
            "accept_offer_new_token",
            {"a": SellerScript(3500, with_holds=False)},
            (Status.PRICE_NOT_MET, *_BOUGHT),
            provider=ProviderScript(reusable_tokens=False),
            wishes=(Wish(accepts=True),),
        ),
        Scenario(
            "cancel_pending",
            {"a": SellerScript(2000, pending_s=1.5, rejects_in_the_end=True), "b": _DEARER},
            _BOUGHT,
            events=(Fault.CANCEL,),
        ),
        Scenario(
            "declined", {"a": _HOLDS}, (Status.FAILED,), provider=ProviderScript(declines=True)
        ),
        Scenario(
            "told",
            {"a": _HOLDS},
            (Status.FAILED,),
            provider=ProviderScript(declines=True),
            events=(Fault.DRAIN,),
            told=True,
        ),
        Scenario(
            "told_when_it_listens",
            {"a": _HOLDS},
            (Status.FAILED,),
            provider=ProviderScript(declines=True),
            told=True,
            busy_for=2,
        ),
        Scenario("too_dear", {"a": SellerScript(3500)}, (Status.PRICE_NOT_MET,)),
        Scenario(
            "silent_at_first", {"a": SellerScript(2000, with_holds=False, silent_for=1)}, _BOUGHT
        ),
        Scenario("nobody_answers", {"a": SellerScript(2000, silent_for=99)}, (Status.FAILED,)),
        Scenario("nobody_has_it", {"a": SellerScript(None)}, (Status.NOT_AVAILABLE,)),
        Scenario(
            "two_purchases_last_copy",
            {
                "a": SellerScript(2000, with_holds=False, stock=1),
                "b": SellerScript(2500, with_holds=False),
            },
            (*_BOUGHT, *_BOUGHT),
            wishes=(Wish(), Wish("bob", after_s=0.005)),
        ),
    )
}
