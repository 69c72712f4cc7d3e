"""Identifiers that sort by the time at which they were made."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh.clock import Clock

NewId = Callable[[], uuid.UUID]
"""Makes a new id at every call."""


def uuid7_factory(clock: Clock, rng: Random) -> NewId:
    """Make a source of version 7 UUIDs (RFC 9562, 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Ids made in the same millisecond have no order among them. ``rng`` decides how hard they are to guess:
    ``random.SystemRandom`` in services, a seeded one in simulations.
    """

    def new_id() -> uuid.UUID:
        unix_ms = int(clock.now().timestamp() * 1000) & (1 << 48) - 1
        rand_a = rng.getrandbits(12)
        rand_b = rng.getrandbits(62)
        return uuid.UUID(int=unix_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)

    return new_id
