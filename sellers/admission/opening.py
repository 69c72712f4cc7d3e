"""Opens admission as a service is told by its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.clock import Clock
from mesh.settings import SellerCallerSettings
from sellers.admission.admission import Admission, rules_of
from sellers.admission.model import AdmissionSettings, Limits
from sellers.admission.valkey import valkey_ledger
from sellers.registry import Directory


def told(
    settings: SellerCallerSettings, browse_share: float, kept_share: float
) -> AdmissionSettings:
    """Give the rules that a service is told."""
    return AdmissionSettings(
        processes=settings.processes,
        process_index=settings.process_index,
        warm_up_s=settings.warm_up_s,
        send_within_s=settings.send_within_s,
        valkey_timeout_s=settings.valkey_timeout_s,
        local_percent=round(settings.local_share * 100),
        reserve_percent=round(settings.reserve_share * 100),
        browse_percent=round(browse_share * 100),
        kept_percent=round(kept_share * 100),
        calls_at_once=settings.calls_at_once,
        breaker_failure_percent=round(settings.breaker_failure_share * 100),
        breaker_calls=settings.breaker_calls,
        breaker_open_s=settings.breaker_open_s,
        alarm_percent=round(settings.alarm_share * 100),
    )


@asynccontextmanager
async def open_admission(
    settings: SellerCallerSettings,
    directory: Directory,
    clock: Clock,
    *,
    browse_share: float = 0.0,
    kept_share: float = 0.0,
) -> AsyncIterator[Admission]:
    """Give admission to the sellers of a directory; its ``run`` must be running.

    ``browse_share`` is how much of what quotes may use browsing may use, 0 to 1; ``kept_share`` how much of it is kept
    for customers who want little.
    """
    rules = told(settings, browse_share, kept_share)

    def sellers() -> list[Limits]:
        snapshot = directory.snapshot
        return [Limits.of(seller) for seller in snapshot.active] if snapshot else []

    async with valkey_ledger(
        settings.valkey_url, rules_of(rules), timeout_s=rules.valkey_timeout_s
    ) as ledger:
        yield Admission(ledger, clock, rules, sellers=sellers, quiet=settings.quiet_start)
