"""What the aggregator is told."""

from __future__ import annotations

from pydantic import Field

from mesh.settings import SellerCallerSettings


class Settings(SellerCallerSettings):
    """The aggregator's settings, from the environment."""

    database_url: str
    """PostgreSQL with the schema ``aggregator``, ``postgresql://...``."""

    seller_timeout_s: float = Field(default=3.0, gt=0, le=60)
    """The most time that one seller gets for a quote, in seconds."""

    merge_margin_s: float = Field(default=0.15, ge=0, le=5)
    """What a collection keeps of its caller's time to hand on the last answers, in seconds."""

    registry_poll_s: float = Field(default=0.25, gt=0, le=1)
    """How often to look for changes that other replicas made in the registry, in seconds."""
