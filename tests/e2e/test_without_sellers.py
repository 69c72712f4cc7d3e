"""Sellers that do not answer at all. The last tests, because sellers that fail are not asked again for a while."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Audit, Fresh
from tests.e2e.customers import Customer, ask, final
from tests.e2e.sellers import SimulatedSellers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def test_without_a_single_answer_the_purchase_has_failed(
    customer: Customer, sellers: SimulatedSellers, audit: Audit, fresh: Fresh
) -> None:
    await sellers.change(error_rate=1)
    request_id = await ask(customer, fresh("ordinary"))
    answer = await final(customer, request_id)
    assert (answer["status"], answer["reason"]) == ("failed", "no_seller_answered")
    await audit(request_id)


async def test_one_answer_of_many_does_not_tell_that_it_is_not_available(
    customer: Customer, sellers: SimulatedSellers, audit: Audit, fresh: Fresh
) -> None:
    await sellers.change(error_rate=1)
    await sellers.change(["foxtrot"], error_rate=0)
    request_id = await ask(customer, fresh("ordinary"))
    answer = await final(customer, request_id)
    assert (answer["status"], answer["reason"]) == ("failed", "no_seller_answered")
    assert answer["message"].startswith("Too few of the sellers answered")
    await audit(request_id)
