"""What the mesh that ran on a folder before may have done to sellers of somebody's own.

The simulated sellers start with the mesh and know nothing of the time before. Others do: in the minute that a limit
counts they may have been called as often as they allow, and no process of this mesh knows of it.
"""

from __future__ import annotations

import asyncpg

from deploy.local.data import DataFolder
from deploy.local.registration import simulated_sellers
from mesh.clock import Clock

_TOUCH_EVERY_S = 5.0


async def keep_touching(data: DataFolder, clock: Clock) -> None:
    """Leave word every few seconds that the mesh runs, until cancelled."""
    while True:
        data.last_run.touch()
        await clock.sleep(_TOUCH_EVERY_S)


async def others_called_lately(
    data: DataFolder, dsn: str, clock: Clock, within_s: float
) -> list[str]:
    """Give the sellers other than the simulated ones that the mesh may have called in the last ``within_s`` seconds.

    The database has its schema.
    """
    try:
        ended_at = data.last_run.stat().st_mtime
    except FileNotFoundError:
        return []
    if clock.now().timestamp() - ended_at > within_s + _TOUCH_EVERY_S:
        return []
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(
            "SELECT seller_id FROM aggregator.seller WHERE state <> 'disabled' AND seller_id <> ALL ($1)",
            sorted(simulated_sellers(data)),
        )
    finally:
        await connection.close()
    return [row["seller_id"] for row in found]
