"""``bookmesh.aggregator.v1.Seller`` to and from ``sellers.model``. Pure."""

from __future__ import annotations

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.seller.v1 import seller_pb2
from mesh import convert
from sellers.answers import capabilities
from sellers.model import Capabilities, Seller, SellerState

STATES: dict[pb.Seller.State.ValueType, SellerState] = {
    pb.Seller.STATE_UNSPECIFIED: SellerState.ACTIVE,
    pb.Seller.STATE_ACTIVE: SellerState.ACTIVE,
    pb.Seller.STATE_DRAINING: SellerState.DRAINING,
    pb.Seller.STATE_DISABLED: SellerState.DISABLED,
}
"""The states of a registration; one that is not said is active."""

STATE_NUMBERS: dict[SellerState, pb.Seller.State.ValueType] = {
    SellerState.ACTIVE: pb.Seller.STATE_ACTIVE,
    SellerState.DRAINING: pb.Seller.STATE_DRAINING,
    SellerState.DISABLED: pb.Seller.STATE_DISABLED,
}


def from_proto(message: pb.Seller) -> Seller:
    """Read a seller that has been validated."""
    return Seller(
        seller_id=message.seller_id,
        display_name=message.display_name,
        endpoint=message.endpoint,
        tls_roots=message.tls_roots,
        credential_reference=message.credential_reference,
        capabilities=capabilities(message.capabilities),
        state=STATES[message.state],
        revision=message.revision,
    )


def to_proto(seller: Seller) -> pb.Seller:
    """Give the message of a seller."""
    return pb.Seller(
        seller_id=seller.seller_id,
        display_name=seller.display_name,
        endpoint=seller.endpoint,
        tls_roots=seller.tls_roots,
        credential_reference=seller.credential_reference,
        capabilities=_capabilities_to_proto(seller.capabilities),
        state=STATE_NUMBERS[seller.state],
        revision=seller.revision,
    )


def _capabilities_to_proto(can: Capabilities) -> seller_pb2.Capabilities:
    return seller_pb2.Capabilities(
        supports_holds=can.supports_holds,
        max_batch_size=can.max_batch_size,
        currency_codes=can.currencies,
        calls_per_minute=can.calls_per_minute,
        quotes_per_minute=can.quotes_per_minute,
        min_quote_life=convert.duration(can.min_quote_life_s),
        key_retention=convert.duration(can.key_retention_s),
        supports_cancel_before_order=can.supports_cancel_before_order,
        supports_get_order=can.supports_get_order,
        honours_not_after=can.honours_not_after,
        contract_versions=can.contract_versions,
    )
