"""Whose word an event is, and what it is about."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import stripe

from orchestrator.adapters.stripe.webhooks import NotStripesWord, StripeWebhooks
from orchestrator.ports import ProviderEvent

SECRET = "whsec_test"
WEBHOOKS = StripeWebhooks(SECRET)


def body(about: Any) -> str:  # noqa: ANN401  JSON
    return json.dumps({"id": "evt_1", "object": "event", "data": {"object": about}})


def signed(payload: str, secret: str = SECRET, timestamp: int | None = None) -> str:
    header: str = stripe.WebhookSignature.generate_signature_header(payload, secret, timestamp)
    return header


@pytest.mark.parametrize(
    ("about", "reference"),
    [
        ({"object": "payment_intent", "id": "pi_1", "metadata": {"request_id": "r1"}}, "r1"),
        ({"object": "payment_intent", "id": "pi_1", "metadata": {}}, None),
        ({"object": "payment_intent", "id": "pi_1", "metadata": {"request_id": 7}}, None),
        ({"object": "charge", "payment_intent": "pi_1", "metadata": {"request_id": "r1"}}, "r1"),
        ({"object": "refund", "payment_intent": "pi_1"}, None),
        ({"object": "dispute", "payment_intent": "pi_1", "metadata": None}, None),
    ],
)
def test_names_the_payment(about: dict[str, Any], reference: str | None) -> None:
    payload = body(about)
    event = WEBHOOKS.verify_event(payload.encode(), signed(payload))
    assert event == ProviderEvent("evt_1", "pi_1", reference)


@pytest.mark.parametrize(
    "about",
    [
        {"object": "payout", "id": "po_1"},
        {"object": "charge", "payment_intent": None},
        {"object": "charge", "payment_intent": {"id": "pi_1"}},
        {},
    ],
)
def test_is_about_no_payment(about: dict[str, Any]) -> None:
    payload = body(about)
    assert WEBHOOKS.verify_event(payload.encode(), signed(payload)) is None


GOOD = body({"object": "payment_intent", "id": "pi_1"})


@pytest.mark.parametrize("signature", ["", "nonsense", "t=abc,v1=00"])
def test_is_not_stripes_word_without_a_signature(signature: str) -> None:
    assert_is_not_stripes_word(GOOD.encode(), signature)


@pytest.mark.parametrize(
    ("payload", "of", "secret", "age_s"),
    [
        (GOOD.encode(), GOOD, "whsec_other", 0),
        (GOOD.replace("pi_1", "pi_2").encode(), GOOD, SECRET, 0),
        (GOOD.encode(), GOOD, SECRET, 301),
        (b"\xff\xfe", GOOD, SECRET, 0),
        (b"no JSON", "no JSON", SECRET, 0),
        (b"[]", "[]", SECRET, 0),
        (b'{"id": "evt_1"}', '{"id": "evt_1"}', SECRET, 0),
        (
            b'{"id": 1, "data": {"object": {}}}',
            '{"id": 1, "data": {"object": {}}}',
            SECRET,
            0,
        ),
    ],
)
def test_is_not_stripes_word(payload: bytes, of: str, secret: str, age_s: int) -> None:
    signature = signed(of, secret, int(time.time()) - age_s)
    assert_is_not_stripes_word(payload, signature)


def assert_is_not_stripes_word(payload: bytes, signature: str) -> None:
    with pytest.raises(NotStripesWord) as caught:
        WEBHOOKS.verify_event(payload, signature)
    assert SECRET not in str(caught.value)
