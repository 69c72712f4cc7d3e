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
        own: what this process may use whatever happens.

    """

    fleet: int
    quotes: int
    own: int


def split(limit: int, settings: AdmissionSettings) -> Shares:
    """Split a limit, rounding down local parts and reserve; what the processes cannot share evenly the first ones get.

    A limit of 100, 3 processes: 80 by Valkey, 64 of them for quotes too; 7, 7 and 6 by the processes.
    """
    if limit >= NO_LIMIT:
        return Shares(NO_LIMIT, NO_LIMIT, NO_LIMIT)
    local = limit * settings.local_percent // 100
    fleet = limit - local
    own, left = divmod(local, settings.processes)
    return Shares(
        fleet=fleet,
        quotes=fleet - fleet * settings.reserve_percent // 100,
        own=own + (settings.process_index < left),
    )
