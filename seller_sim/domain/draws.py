"""Seeded chance: numbers that look random and depend on their names alone.

Nothing is stored and nothing advances: the same names give the same numbers in every process and in any order.
"""

from __future__ import annotations

import math
import struct
from hashlib import blake2b
from statistics import NormalDist

_unpack = struct.Struct("<8I").unpack
_SCALE = 2.0**-32
_normal = NormalDist()

Draws = tuple[float, ...]
"""Eight numbers of 0 or more and below 1."""


def draws(*names: object) -> Draws:
    """Give eight independent uniform numbers of 0 or more and below 1 for ``names``."""
    digest = blake2b("\x1f".join(map(str, names)).encode(), digest_size=32).digest()
    return tuple([number * _SCALE for number in _unpack(digest)])


def between(low: float, high: float, draw: float) -> float:
    """Give the uniform number of ``low`` or more and below ``high`` for a draw."""
    return low + (high - low) * draw


def exponential(mean: float, draw: float) -> float:
    """Give the exponentially distributed number with that mean for a draw."""
    return -mean * math.log1p(-draw)


def lognormal(median: float, sigma: float, draw: float) -> float:
    """Give the log-normally distributed number for a draw; ``sigma`` is the deviation of its logarithm."""
    return median * math.exp(sigma * _normal.inv_cdf(max(draw, _SCALE)))
