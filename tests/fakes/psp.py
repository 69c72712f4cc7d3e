"""Payment providers in processes of their own: the simulator of ours, and localstripe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
from aiohttp import web

from deploy.local.ports import Ports

API_KEY = "sk_test_simulated"
WEBHOOK_SECRET = "whsec_simulated"


@dataclass(frozen=True, slots=True)
class PspSim:
    """A running simulator."""

    url: str
    process: subprocess.Popen[str]

    async def plan(self, operation: str, kind: str, **more: Any) -> None:  # noqa: ANN401  as the simulator takes it
        """Plan a fault."""
        await self.post("/_sim/faults", {"operation": operation, "kind": kind, **more})

    async def advance(self, seconds: int) -> datetime:
        """Set its clock forward; give the time that it has then."""
        answer = await self.post("/_sim/clock", {"advance_s": seconds})
        return datetime.fromtimestamp(answer["now"], UTC)

    async def forget(self) -> None:
        """Have it forget everything."""
        async with self.client() as client:
            (await client.delete("/_sim")).raise_for_status()

    async def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  JSON
        """Send JSON to its own part."""
        async with self.client() as client:
            response = await client.post(path, json=body)
            response.raise_for_status()
            return response.json()

    def client(self) -> httpx.AsyncClient:
        """Make a client that shows the key."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10
        )


@contextmanager
def running_psp_sim(folder: Path, **settings: str) -> Iterator[PspSim]:
    """Run the simulator; ``settings`` are its environment variables without the prefix, in lower case."""
    told = {f"BOOKMESH_{name.upper()}": value for name, value in settings.items()}
    environment = os.environ | {"BOOKMESH_DATA_DIR": str(folder)} | told
    command = [sys.executable, "-m", "psp_sim"]
    with _program(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"psp_sim did not start: {line}"
        yield PspSim(found[0], process)


@contextmanager
def running_localstripe() -> Iterator[str]:
    """Run localstripe; give its URL."""
    command = [sys.executable, "-m", "localstripe", "--from-scratch", "--port"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        Ports(Path(os.devnull)) as ports,
        _program([*command, str(port := ports.take("localstripe"))], text=True, **quiet) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        while not _answers(url):
            assert process.poll() is None, "localstripe did not start: it needs IPv6"
            time.sleep(0.05)
        yield url


@asynccontextmanager
async def empty_localstripe(url: str) -> AsyncIterator[str]:
    """Empty it, and give the URL of a relay to it that leaves out what Stripe has introduced since."""
    async with httpx.AsyncClient(timeout=10) as client:
        (await client.delete(f"{url}/_config/data")).raise_for_status()
        async with _relay(client, url) as relayed:
            yield relayed


async def localstripe_card(url: str, number: str) -> str:
    """Make a payment method of a card at localstripe."""
    card = {"number": number, "exp_month": "12", "exp_year": "2030", "cvc": "123"}
    form = {"type": "card"} | {f"card[{name}]": value for name, value in card.items()}
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        response = await client.post(f"{url}/v1/payment_methods", data=form)
        response.raise_for_status()
        name: str = response.json()["id"]
        return name


@contextmanager
def _program(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:  # noqa: ANN401  Popen's
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _answers(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


@asynccontextmanager
async def _relay(client: httpx.AsyncClient, target: str) -> AsyncIterator[str]:
    async def pass_on(request: web.Request) -> web.Response:
        form = parse_qsl(await request.text())
        answer = await client.request(
            request.method,
            f"{target}{request.path_qs}",
            content=urlencode([p for p in form if not p[0].startswith("allowed_payment")]),
            headers={
                "Authorization": request.headers["Authorization"],
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )
        return web.Response(
            body=answer.content, status=answer.status_code, content_type="application/json"
        )

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
