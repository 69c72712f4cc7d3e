"""When a message is sent again, how it is signed, and what an answer means."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from orchestrator.domain.notifications import (
    DEAD,
    GONE,
    SCHEDULE_S,
    Delivered,
    DeliveryState,
    NotDelivered,
    Undeliverable,
    judge,
    signed_headers,
    write_secret,
)

HOUR_S = 3600
BODY = '{"type":"purchase_request.final","data":{"message":"Best price ($34.99) für dich"}}'


def test_tries_follow_the_schedule_of_the_specification_within_a_tenth() -> None:
    rng = Random(1)
    error = NotDelivered("it answered 500", 500)
    delays = [judge(error, tries, rng).next_in_s for tries in range(1, 10)]
    expected = [5, 300, 1800, *(hours * HOUR_S for hours in (2, 5, 10, 14, 20, 24))]
    assert all(
        delay is not None and 0.9 * wanted <= delay <= 1.1 * wanted
        for delay, wanted in zip(delays, expected, strict=True)
    )
    assert len(SCHEDULE_S) == 10


def test_jitter_keeps_receivers_that_failed_together_apart() -> None:
    rng = Random(1)
    delays = {judge(NotDelivered("no", None), 3, rng).next_in_s for _ in range(100)}
    assert len(delays) == 100


def test_after_the_last_try_the_message_is_given_up_and_a_dead_endpoint_disabled() -> None:
    verdict = judge(NotDelivered("it answered 500", 500), len(SCHEDULE_S), Random(1))
    assert verdict.state is DeliveryState.FAILED
    assert (verdict.next_in_s, verdict.gone, verdict.dead) == (None, None, DEAD)


def test_gone_disables_the_endpoint_at_once() -> None:
    verdict = judge(NotDelivered("it answered 410", 410), 1, Random(1))
    assert (verdict.state, verdict.next_in_s, verdict.gone) == (DeliveryState.FAILED, None, GONE)


def test_what_can_never_be_taken_is_given_up_without_blame() -> None:
    verdict = judge(Undeliverable("refused with code 550"), 1, Random(1))
    assert (verdict.state, verdict.gone, verdict.dead) == (DeliveryState.FAILED, None, None)


def test_success_is_success() -> None:
    verdict = judge(Delivered(204), 7, Random(1))
    assert (verdict.state, verdict.status, verdict.error) == (DeliveryState.DELIVERED, 204, "")


def test_a_signature_is_that_of_the_specification() -> None:
    """The vector that the specification's own libraries are tested with."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        '{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_receivers_verify_it_with_the_present_secret_and_with_the_one_before() -> None:
    new, old, other = (write_secret(bytes([number]) * 32) for number in (1, 2, 3))
    now = datetime.now(timezone(timedelta(hours=9)))
    headers = signed_headers("id", now, BODY, [new, old])
    for secret in (new, old):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(BODY.replace("34.99", "3.99"), headers)


def test_a_secret_is_base64_after_its_prefix() -> None:
    secret = write_secret(bytes(range(32)))
    assert base64.b64decode(secret.removeprefix("whsec_")) == bytes(range(32))
    assert secret.startswith("whsec_")
