"""Which sellers may be registered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aggregator.domain.registration import Problem, problems
from sellers.model import Seller
from tests.fakes.seller import registered

ACME = registered("acme", "acme:443")
EMPTY = """-----BEGIN CERTIFICATE-----
-----END CERTIFICATE-----
"""


def able(*, get_order: bool, not_after: bool) -> Seller:
    capabilities = replace(
        ACME.capabilities, supports_get_order=get_order, honours_not_after=not_after
    )
    return replace(ACME, capabilities=capabilities)


@pytest.mark.parametrize(("get_order", "not_after"), [(True, True), (True, False), (False, True)])
def test_one_way_to_resolve_an_order_is_enough(*, get_order: bool, not_after: bool) -> None:
    assert problems([able(get_order=get_order, not_after=not_after)]) == []


def test_a_seller_whose_orders_could_never_be_resolved_is_named() -> None:
    [problem] = problems([registered("beta", "beta:443"), able(get_order=False, not_after=False)])
    assert (problem.index, problem.field) == (1, "capabilities")
    assert problem.description.startswith("acme has neither GetOrder nor not_after")


def test_the_same_id_twice_is_one_too_many() -> None:
    assert problems([ACME, ACME]) == [Problem(1, "seller_id", "acme is in the request twice")]


@pytest.mark.parametrize(
    "roots", ["System", "nonsense", EMPTY, "-----BEGIN CERTIFICATE-----", "\u00e9"]
)
def test_roots_that_are_no_certificates_are_refused(roots: str) -> None:
    [problem] = problems([replace(ACME, tls_roots=roots)])
    assert (problem.index, problem.field) == (0, "tls_roots")
    assert "acme" in problem.description


def test_roots_may_be_certificates_the_system_s_or_none(certificate: str) -> None:
    for roots in ("", "system", certificate, certificate * 2):
        assert problems([replace(ACME, tls_roots=roots)]) == []
