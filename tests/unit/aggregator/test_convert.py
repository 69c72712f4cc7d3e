"""Protobuf of the aggregator, to and from the domain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aggregator import convert
from aggregator.domain.health import Health
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from mesh import errors
from sellers.admission.model import NO_LIMIT
from sellers.model import SellerState
from tests.fakes.fleet_health import well


def test_the_budget_of_a_seller_without_limits_fits_into_the_message() -> None:
    """The fleet's part and this process's own are as good as endless, each."""
    calls = replace(well("acme"), calls_left=2 * NO_LIMIT)
    health = Health("acme", SellerState.ACTIVE, calls, (None, None, None))
    assert convert.seller_health(health).budget_left == NO_LIMIT


def test_a_currency_that_there_is_not_is_the_callers_mistake() -> None:
    with pytest.raises(errors.InvalidArgument) as raised:
        convert.question(pb.CollectQuotesRequest(book_id="9780134685991", currency_code="ZZZ"))
    [field] = raised.value.fields
    assert (field.field, field.description) == (
        "currency_code",
        "'ZZZ' is not an ISO 4217 currency code",
    )
