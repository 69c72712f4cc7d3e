"""Submitting, looking, listing."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from mesh import errors
from mesh.money import Money
from orchestrator.adapters.vault import AesTokenVault
from orchestrator.domain.purchase import Status
from orchestrator.ports import Wanted
from tests.fakes.market import Market, ScriptedSeller
from tests.integration.orchestrator.conftest import CLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.orchestrator.conftest import Changes, World

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


async def test_waits_for_the_authorization(world: World) -> None:
    async with world.working():
        world.market = Market(ScriptedSeller("a", 2000))
        view = await world.purchases.submit(world.order(payment_token="tok_slow_decline"), 0.3)
        assert not view.settled
        assert view.status is Status.PENDING
        view = await world.purchases.submit(world.order(payment_token="tok_decline"), 30)
        assert view.settled
        assert view.status is Status.FAILED


async def test_the_same_key_and_content_is_one_purchase(world: World) -> None:
    first = await world.purchases.submit(world.order(idempotency_key="k"), 0)
    again = await world.purchases.submit(world.order(idempotency_key="k"), 0)
    assert again == first


async def test_twenty_at_once_under_one_key_are_one_purchase(world: World) -> None:
    views = await asyncio.gather(
        *(world.purchases.submit(world.order(idempotency_key="k"), 0) for _ in range(20))
    )
    assert len({view.request_id for view in views}) == 1
    assert await world.pool.fetchval("SELECT count(*) FROM orchestrator.purchase") == 1
    assert await world.pool.fetchval("SELECT count(*) FROM orchestrator.payment") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"book_id": "9780262033848"},
        {"max_price": Money("USD", 3000)},
        {"max_price": Money("EUR", 2999)},
        {"payment_token": "tok_other"},
    ],
)
async def test_the_same_key_for_something_else_is_refused(world: World, change: Changes) -> None:
    await world.purchases.submit(world.order(idempotency_key="k"), 0)
    with pytest.raises(errors.AlreadyExists) as caught:
        await world.purchases.submit(replace(world.order(**change), idempotency_key="k"), 0)
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_a_key_from_before_the_keyring_changed_is_refused(
    world: World, tmp_path: Path
) -> None:
    await world.purchases.submit(world.order(idempotency_key="k"), 0)
    keyring = tmp_path / "another.json"
    key = base64.b64encode(bytes(range(1, 33))).decode()
    keyring.write_text(json.dumps({"keys": [{"id": "k2", "key": key}]}))
    world.vault = AesTokenVault(keyring, CLOCK)
    with pytest.raises(errors.AlreadyExists) as caught:
        await world.new_purchases().submit(world.order(idempotency_key="k"), 0)
    assert caught.value.reason == "IDEMPOTENCY_KEY_TOO_OLD"


async def test_a_key_is_its_customers_own(world: World) -> None:
    alice = await world.purchases.submit(world.order(idempotency_key="k"), 0)
    bob = await world.purchases.submit(world.order(idempotency_key="k", customer_id="bob"), 0)
    assert alice.request_id != bob.request_id


async def test_a_retried_call_is_one_purchase(world: World) -> None:
    order = world.order()
    first = await world.purchases.submit(order, 0)
    assert await world.purchases.submit(order, 0) == first


async def test_another_customers_request_does_not_exist(world: World) -> None:
    view = await world.purchases.submit(world.order(), 0)
    answers = []
    for customer_id, request_id in [
        ("bob", str(view.request_id)),
        ("alice", str(uuid4())),
        ("alice", "not-an-id"),
    ]:
        with pytest.raises(errors.NotFound) as caught:
            await world.purchases.get(customer_id, request_id)
        answers.append((caught.value.reason, caught.value.message))
    assert len(set(answers)) == 1


async def test_lists_newest_first_in_pages_that_do_not_shift(world: World) -> None:
    made = [(await world.purchases.submit(world.order(), 0)).request_id for _ in range(5)]
    await world.purchases.submit(world.order(customer_id="bob"), 0)
    newest_first = made[::-1]
    page = await world.purchases.page("alice", Wanted(), 2, "")
    seen = [view.request_id for view in page.purchases]
    await world.purchases.submit(world.order(), 0)
    while page.next_page_token:
        page = await world.purchases.page("alice", Wanted(), 2, page.next_page_token)
        seen += [view.request_id for view in page.purchases]
    assert seen == newest_first


async def test_a_made_up_page_token_is_refused(world: World) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await world.purchases.page("alice", Wanted(), 2, "nonsense")
    assert caught.value.fields[0].field == "page_token"


async def test_a_page_token_goes_with_its_customer_and_filters(world: World) -> None:
    for customer_id in ("alice", "bob"):
        for _ in range(3):
            await world.purchases.submit(world.order(customer_id=customer_id), 0)
    wanted = Wanted(frozenset({Status.PENDING}), "9780134685991", NOON, None)
    token = (await world.purchases.page("alice", wanted, 1, "")).next_page_token
    assert token
    # How many are shown may change.
    assert len((await world.purchases.page("alice", wanted, 2, token)).purchases) == 2
    for customer_id, other in (
        ("bob", wanted),
        ("alice", Wanted()),
        ("alice", replace(wanted, statuses=frozenset({Status.FAILED}))),
        ("alice", replace(wanted, book_id="other")),
        ("alice", replace(wanted, created_after=None)),
        ("alice", replace(wanted, created_before=NOON + timedelta(days=3650))),
    ):
        with pytest.raises(errors.InvalidArgument, match="belongs to another list"):
            await world.purchases.page(customer_id, other, 1, token)


@pytest.mark.parametrize("token", ["nonsense", "é", "A" * 43, "_" * 43, "A" * 44, "=" * 43, "AAA"])
async def test_no_made_up_page_token_is_more_than_a_mistake(world: World, token: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await world.purchases.page("alice", Wanted(), 2, token)
    assert [field.field for field in caught.value.fields] == ["page_token"]


async def test_the_payment_token_is_not_readable_in_the_database(world: World) -> None:
    await world.purchases.submit(world.order(payment_token="tok_canary"), 0)
    row = await world.pool.fetchrow("SELECT p::text AS text FROM orchestrator.purchase p")
    assert row is not None
    assert "canary" not in row["text"]
    assert b"tok_canary".hex() not in row["text"]
