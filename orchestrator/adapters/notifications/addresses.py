"""Which addresses of the network may be sent to on behalf of customers, who choose them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# What ipaddress, in one Python or another, takes for global, but is not a host of somebody on the internet.
_RESERVED_V4 = (
    # Protocol assignments (RFC 6890); a cloud has its metadata there.
    IPv4Network("192.0.0.0/24"),
    # Relays of 6to4 (RFC 7526).
    IPv4Network("192.88.99.0/24"),
    # The host agent of Azure's machines, which tells them their secrets.
    IPv4Network("168.63.129.16/32"),
)
_UNICAST_V6 = IPv6Network("2000::/3")
# Of these, all that have an IPv4 address inside, or are set aside (RFC 6890, 7526, 9637).
_RESERVED_V6 = (
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),
    IPv6Network("3fff::/20"),
)


def is_public(address: str) -> bool:
    """Say whether an IP address is one on the internet: of nobody's private network, of no machine's own.

    Loopback, private, shared (CGNAT), link-local (and so cloud metadata), multicast, reserved and documentation
    addresses are not, nor any IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4, Teredo) or has a zone.
    """
    parsed = _parse(address)
    if isinstance(parsed, IPv4Address):
        return (
            parsed.is_global
            and not parsed.is_multicast
            and not parsed.is_reserved
            and not any(parsed in network for network in _RESERVED_V4)
        )
    return (
        parsed is not None
        and parsed in _UNICAST_V6
        and parsed.scope_id is None
        and parsed.is_global
        and not any(parsed in network for network in _RESERVED_V6)
    )


def is_loopback(address: str) -> bool:
    """Say whether an IP address is this machine's own, by which only it reaches itself."""
    parsed = _parse(address)
    return parsed is not None and parsed.is_loopback


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None
