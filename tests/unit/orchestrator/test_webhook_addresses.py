"""Which addresses of the network customers may have us send to."""

from __future__ import annotations

import pytest

from orchestrator.adapters.notifications.addresses import is_loopback, is_public


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "172.32.0.1", "2606:2800:21f:cb07::1", "2a00:1450::1"]
)
def test_hosts_on_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        # this machine
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "::1",
        "::",
        # private networks
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        # metadata of clouds, and link-local
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        # CGNAT, benchmarking, documentation, reserved, broadcast, 6to4 relays
        "100.64.0.1",
        "100.127.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        # multicast
        "224.0.0.1",
        "239.1.1.1",
        "ff02::1",
        "ff0e::1",
        # IPv4 inside IPv6: mapped, compatible, NAT64, 6to4, Teredo
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0a00:1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:a00:1::",
        # a zone makes it mean something on this machine alone
        "2606:2800:21f:cb07::1%1",
        # none at all
        "",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
    ],
)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


def test_loopback_is_this_machine_alone() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("::ffff:127.0.0.1") or not is_public("::ffff:127.0.0.1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("localhost")
