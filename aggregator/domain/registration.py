"""Which sellers may be registered."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh.errors import NotFound
from sellers.model import SYSTEM_ROOTS, Seller

MOST_NAMES = 50
"""Most sellers that a message names: with the longest ids that is 3 kB, and 8 kB is the limit of gRPC's headers."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a seller cannot be registered: its place in the request, the field, and a sentence that names it."""

    index: int
    field: str
    description: str


def problems(sellers: Sequence[Seller]) -> list[Problem]:
    """Give what is wrong with a registration beyond the form of its fields; nothing if all may be registered."""
    found = []
    seen: set[str] = set()
    for index, seller in enumerate(sellers):
        name = seller.seller_id
        if name in seen:
            found.append(Problem(index, "seller_id", f"{name} is in the request twice"))
        seen.add(name)
        if not (seller.capabilities.supports_get_order or seller.capabilities.honours_not_after):
            found.append(
                Problem(
                    index,
                    "capabilities",
                    f"{name} has neither GetOrder nor not_after: an order whose answer is lost could never be "
                    "resolved",
                )
            )
        if seller.tls_roots not in {"", SYSTEM_ROOTS} and not _are_certificates(seller.tls_roots):
            found.append(
                Problem(
                    index,
                    "tls_roots",
                    f'the roots of {name} are neither certificates in PEM nor "system"',
                )
            )
    return found


def not_registered(seller_ids: Iterable[str]) -> NotFound:
    """Give the error that names sellers that the registry does not have."""
    names = sorted(seller_ids)
    return NotFound(
        f"not registered: {', '.join(names[:MOST_NAMES])}"
        + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    )


def _are_certificates(pem: str) -> bool:
    if not pem.isascii():
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return False
    return True
