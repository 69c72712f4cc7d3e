"""How a seller's limit is split, so that the parts never add up to more than it."""

from __future__ import annotations

from dataclasses import dataclass

from sellers.admission.model import NO_LIMIT, AdmissionSettings


@dataclass(frozen=True, slots=True)
class Shares:
    """The parts of a limit.

    Attributes:
        fleet: what Valkey grants.
        quotes: what of it quotes may use.
        reserve: the rest, which is for purchases.
        browse: what of that those who only compare prices may use.
        own: what this process may use whatever happens.
        own_browse: what of that those who only compare prices may use.

    """

    fleet: int
    quotes: int
    reserve: int
    browse: int
    own: int
    own_browse: int


def split(limit: int, settings: AdmissionSettings) -> Shares:
    """Split a limit, rounding down local parts and reserve; what the processes cannot share evenly the first ones get.

    A limit of 100, 3 processes: 80 by Valkey, 64 of them for quotes too, 12 of those for browsing too; 7, 7 and 6 by
    the processes. Of what Valkey grants, one call is for purchases and one for browsing also where that rounds down to
    none, as long as it is not the only one: a seller that quotes use up cannot be bought from.
    """
    if limit >= NO_LIMIT:
        return Shares(NO_LIMIT, NO_LIMIT, 0, NO_LIMIT, NO_LIMIT, NO_LIMIT)
    local = limit * settings.local_percent // 100
    fleet = limit - local
    own, left = divmod(local, settings.processes)
    reserve = min(max(1, fleet * settings.reserve_percent // 100), max(0, fleet - 1))
    if not settings.reserve_percent:
        reserve = 0
    quotes = fleet - reserve
    own += settings.process_index < left
    return Shares(
        fleet=fleet,
        quotes=quotes,
        reserve=reserve,
        browse=browse_part(quotes, settings),
        own=own,
        own_browse=own * settings.browse_percent // 100,
    )


def kept_part(of: int, settings: AdmissionSettings) -> int:
    """Give the part of what quotes may use that is kept for customers who want little; never all."""
    if of >= NO_LIMIT:
        return 0
    return min(-(-of * settings.kept_percent // 100), max(0, of - 1))


def browse_part(of: int, settings: AdmissionSettings) -> int:
    """Give the part of what quotes may use that is for browsing too."""
    if not settings.browse_percent:
        return 0
    return min(max(1, of * settings.browse_percent // 100), max(0, of - 1))
