"""What the aggregator is not told is as its parts have it."""

from __future__ import annotations

from pathlib import Path

from aggregator.app.capabilities import CapabilitySettings
from aggregator.app.lots import GatherSettings
from aggregator.app.refresh import RefreshSettings
from aggregator.domain.cached import CacheSettings
from aggregator.settings import Settings


def test_the_defaults_are_those_of_the_parts() -> None:
    settings = Settings(
        valkey_url="redis://valkey",
        seller_credentials_file=Path("credentials.json"),
        database_url="postgresql://",
    )
    assert (
        GatherSettings(
            linger_s=settings.linger_s,
            longest_linger_s=settings.longest_linger_s,
            seller_s=settings.seller_timeout_s,
        )
        == GatherSettings()
    )
    assert (
        CacheSettings(
            quote_s=settings.quote_good_s,
            no_s=settings.no_good_s,
            failure_s=settings.failure_good_s,
            margin_s=settings.quote_margin_s,
        )
        == CacheSettings()
    )
    assert (
        RefreshSettings(ahead_s=settings.refresh_ahead_s, hot=settings.refresh_demand)
        == RefreshSettings()
    )
    assert CapabilitySettings(every_s=settings.capabilities_every_s) == CapabilitySettings()
