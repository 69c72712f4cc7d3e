"""The directory holds an immutable snapshot that is swapped as a whole."""

from __future__ import annotations

from dataclasses import replace

from sellers.model import SellerState
from sellers.registration import from_proto, to_proto
from sellers.registry import Directory
from tests.fakes.seller import registered

ACME = registered("acme", "acme:443")
BETA = registered("beta", "beta:443")


def test_nothing_is_known_before_the_registry_has_been_read() -> None:
    assert Directory().snapshot is None


def test_only_active_sellers_are_asked() -> None:
    draining = replace(registered("gamma", "gamma:443"), state=SellerState.DRAINING)
    disabled = replace(registered("delta", "delta:443"), state=SellerState.DISABLED)
    snapshot = Directory().replace([BETA, draining, ACME, disabled], 3)
    assert snapshot.active == (ACME, BETA)
    assert set(snapshot.sellers) == {"acme", "beta", "gamma", "delta"}


def test_a_change_makes_a_new_snapshot_and_leaves_the_old_one_alone() -> None:
    directory = Directory()
    before = directory.replace([ACME, BETA], 1)
    after = directory.apply([replace(BETA, state=SellerState.DISABLED, revision=2)], 2)
    assert directory.snapshot is after
    assert (before.revision, before.active) == (1, (ACME, BETA))
    assert (after.revision, after.active) == (2, (ACME,))


def test_a_seller_survives_the_way_over_protobuf() -> None:
    for state in SellerState:
        seller = replace(ACME, state=state, tls_roots="system", revision=7)
        assert from_proto(to_proto(seller)) == seller
