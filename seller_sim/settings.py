"""Settings of the simulator."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mesh.settings import ServiceSettings

DEMO = Path(__file__).parent / "scenarios" / "demo.yaml"


class Settings(ServiceSettings):
    """What the simulator is told. ``listen`` is the address of its control."""

    scenario_file: Path = DEMO
    """The scenario; the demo's unless said otherwise."""

    data_dir: Path
    """Folder of the ledger, the credentials and the addresses; made if there is none. One process each."""

    sellers: int | None = Field(default=None, ge=1, le=10_000)
    """How many sellers; as many as the scenario describes unless said otherwise."""

    sellers_per_address: int | None = Field(default=None, ge=1, le=10_000)
    """How many share an address, told apart by their credentials; 1 for up to 500 sellers, else 500."""

    seller_drain_s: float = Field(default=2.0, ge=0, le=600)
    """How long calls to sellers may take after SIGTERM, in seconds; those that hang end at once."""
