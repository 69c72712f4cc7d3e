"""Starts the simulated payment provider: ``python -m psp_sim``."""

from __future__ import annotations

import asyncio
import signal
import sys
from random import SystemRandom

from aiohttp import web

from mesh import telemetry
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.settings import load
from psp_sim.adapters.http import StripeApi
from psp_sim.adapters.payments import Payments
from psp_sim.adapters.sqlite import LedgerError, SqliteLedger
from psp_sim.adapters.webhooks import Webhooks
from psp_sim.settings import Settings


async def main(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT."""
    clock = SystemClock()
    ledger = SqliteLedger(settings.data_dir)

    def now() -> int:
        return int(clock.now().timestamp()) + ledger.ahead_s()

    webhooks = None
    if settings.psp_webhook_url is not None:
        webhooks = Webhooks(
            ledger,
            settings.psp_webhook_url,
            settings.psp_webhook_secret.get_secret_value(),
            copies=settings.psp_webhook_copies,
            now=now,
        )
    api = StripeApi(
        ledger,
        Payments(ledger, uuid7_factory(clock, SystemRandom()), now),
        clock,
        now=now,
        api_key=settings.psp_api_key.get_secret_value(),
        on_event=webhooks.wake if webhooks else lambda: None,
    )
    host, port = settings.listen.rsplit(":", 1)
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, int(port))
    await site.start()
    print(f"psp_sim answers at http://{host}:{runner.addresses[0][1]}", flush=True)  # noqa: T201  for who started it

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    delivering = asyncio.create_task(webhooks.run()) if webhooks else None
    await stopped.wait()
    if delivering:
        delivering.cancel()
    await runner.cleanup()
    ledger.close()


if __name__ == "__main__":
    told = load(Settings)
    tracing = telemetry.set_up("psp_sim", told.listen, told.log_level)
    try:
        asyncio.run(main(told))
    except LedgerError as error:
        sys.exit(str(error))
    finally:
        tracing.shutdown()
