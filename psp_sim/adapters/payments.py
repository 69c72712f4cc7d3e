"""The requests of Stripe's API that the simulator answers, without HTTP, faults and idempotency keys."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psp_sim.adapters import forms, objects
from psp_sim.domain import decisions
from psp_sim.domain.cards import CARDS, card_of
from psp_sim.domain.model import Intent, Refund, Status, missing, wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh.ids import NewId
    from psp_sim.adapters.forms import Form
    from psp_sim.adapters.objects import Object
    from psp_sim.adapters.sqlite import SqliteLedger

_MOST = 99_999_999
_CURRENCY = re.compile(r"[a-z]{3}")
_LONGEST_PAGE = 100
_FOR_EVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: HTTP status and object, and whether it is kept under the idempotency key."""

    status: int
    body: Object
    kept: bool = True


class Payments:
    """Does what is asked for on the ledger. The caller has opened a transaction where something may change."""

    def __init__(self, ledger: SqliteLedger, new_id: NewId, now: Callable[[], int]) -> None:
        """Use a ledger, a source of ids and the simulator's time in Unix seconds."""
        self._ledger = ledger
        self._new_id = new_id
        self._now = now

    def authorize(self, form: Form, key: str | None) -> Answer:
        """``POST /v1/payment_intents`` with ``confirm``, captured by hand."""
        amount, currency = forms.whole(form, "amount"), forms.text(form, "currency")
        if amount is None or not 0 < amount <= _MOST:
            raise wrong(f"The amount must be from 1 to {_MOST}.", "amount", "amount_invalid")
        if currency is None or not _CURRENCY.fullmatch(currency):
            raise wrong("Invalid currency.", "currency")
        if form.get("capture_method") != "manual" or form.get("confirm") != "true":
            raise wrong(
                "This simulator knows capture_method=manual with confirm=true only.",
                "capture_method",
            )
        now = self._now()
        intent = Intent(
            intent_id=self._name("pi"),
            created=now,
            amount=amount,
            currency=currency,
            card=_card(form),
            metadata=forms.texts(form, "metadata"),
        )
        off_session = form.get("off_session") == "true"
        intent = decisions.confirmed(intent, self._name("ch"), now, off_session=off_session)
        self._ledger.write_intent(intent)
        if intent.failure is not None:
            self._tell("payment_intent.payment_failed", self._shown(intent), key)
            return Answer(402, objects.declined(intent))
        kind = (
            "requires_action"
            if intent.status is Status.REQUIRES_ACTION
            else "amount_capturable_updated"
        )
        self._tell(f"payment_intent.{kind}", self._shown(intent), key)
        return Answer(200, self._shown(intent, form))

    def capture(self, intent_id: str, form: Form, key: str | None) -> Answer:
        """``POST /v1/payment_intents/{id}/capture``."""
        intent = decisions.captured(
            self._current(intent_id), forms.whole(form, "amount_to_capture")
        )
        self._ledger.write_intent(intent)
        self._tell("payment_intent.succeeded", self._shown(intent), key)
        return Answer(200, self._shown(intent, form))

    def cancel(self, intent_id: str, form: Form, key: str | None) -> Answer:
        """``POST /v1/payment_intents/{id}/cancel``."""
        intent = decisions.canceled(self._current(intent_id))
        self._ledger.write_intent(intent)
        self._tell("payment_intent.canceled", self._shown(intent), key)
        return Answer(200, self._shown(intent, form))

    def refund(self, form: Form, key: str | None) -> Answer:
        """``POST /v1/refunds`` of a payment intent."""
        intent_id = forms.text(form, "payment_intent")
        if intent_id is None:
            raise wrong("This simulator refunds a payment_intent only.", "payment_intent")
        intent = self._current(intent_id)
        given_back = sum(
            r.amount for r in self._ledger.refunds(intent_id) if r.status == "succeeded"
        )
        refund = Refund(
            refund_id=self._name("re"),
            intent_id=intent_id,
            created=self._now(),
            amount=decisions.refundable(intent, given_back, forms.whole(form, "amount")),
            status="failed" if CARDS[intent.card].refund_fails else "succeeded",
            metadata=forms.texts(form, "metadata"),
        )
        self._ledger.write_refund(refund)
        kind = "refund.failed" if refund.status == "failed" else "refund.created"
        self._tell(kind, objects.refund_object(refund, intent), key)
        return Answer(200, objects.refund_object(refund, intent))

    def retrieve(self, intent_id: str, form: Form) -> Answer:
        """``GET /v1/payment_intents/{id}``."""
        return Answer(200, self._shown(self._current(intent_id), form))

    def list_intents(self, form: Form) -> Answer:
        """``GET /v1/payment_intents``, newest first."""
        created = forms.tree(form, "created")
        since = max(_bound(created, "gte", 0), _bound(created, "gt", -1) + 1)
        until = min(_bound(created, "lte", _FOR_EVER), _bound(created, "lt", _FOR_EVER + 1) - 1)
        limit = forms.whole(form, "limit") or 10
        if limit > _LONGEST_PAGE:
            raise wrong(f"The limit must be at most {_LONGEST_PAGE}.", "limit")
        after = forms.text(form, "starting_after")
        if after is not None and self._ledger.intent(after) is None:
            raise missing("payment_intent", after, 400, "starting_after")
        found = self._ledger.intents(since, until, after, limit + 1)
        expand = "data.latest_charge" in forms.texts(form, "expand").values()
        data = [
            self._object(decisions.lapsed(intent, self._now()), expand_charge=expand)
            for intent in found[:limit]
        ]
        return Answer(200, objects.listed("/v1/payment_intents", data, has_more=len(found) > limit))

    def list_refunds(self, form: Form) -> Answer:
        """``GET /v1/refunds`` of a payment intent, newest first, all on one page."""
        intent_id = forms.text(form, "payment_intent")
        if intent_id is None:
            raise wrong("This simulator lists refunds of a payment_intent only.", "payment_intent")
        intent = self._current(intent_id)
        data = [objects.refund_object(r, intent) for r in self._ledger.refunds(intent_id)]
        return Answer(200, objects.listed("/v1/refunds", data, has_more=False))

    def retrieve_event(self, event_id: str) -> Answer:
        """``GET /v1/events/{id}``."""
        body = self._ledger.event(event_id)
        if body is None:
            raise missing("event", event_id, param="id")
        return Answer(200, json.loads(body))

    def _current(self, intent_id: str) -> Intent:
        """Give an intent as it is now; one that has lapsed since is canceled first."""
        intent = self._ledger.intent(intent_id)
        if intent is None:
            raise missing("payment_intent", intent_id)
        current = decisions.lapsed(intent, self._now())
        if current != intent:
            self._ledger.write_intent(current)
            self._tell("payment_intent.canceled", self._shown(current), None)
        return current

    def _shown(self, intent: Intent, form: Form | None = None) -> Object:
        expand = form is not None and "latest_charge" in forms.texts(form, "expand").values()
        return self._object(intent, expand_charge=expand)

    def _object(self, intent: Intent, *, expand_charge: bool) -> Object:
        refunds = self._ledger.refunds(intent.intent_id) if expand_charge else ()
        return objects.payment_intent(intent, refunds, expand_charge=expand_charge)

    def _tell(self, kind: str, about: Object, key: str | None) -> None:
        event_id = self._name("evt")
        body = objects.event(event_id, kind, about, self._now(), key)
        self._ledger.write_event(event_id, json.dumps(body))

    def _name(self, prefix: str) -> str:
        return f"{prefix}_{self._new_id().hex}"


def _card(form: Form) -> str:
    method = forms.text(form, "payment_method")
    if method is None:
        raise wrong("A payment method is missing.", "payment_method", "parameter_missing")
    return card_of(method)


def _bound(created: Form, name: str, default: int) -> int:
    bound = forms.whole(created, name)
    return default if bound is None else bound
