"""Watching and comparing by server-sent events: with a plain reader, and in a real browser where there is one."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Fresh
from tests.e2e.customers import PATH, Rest, ask, final
from tests.e2e.sellers import SimulatedSellers
from tests.fakes.events import EventReader

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

PAGE = """<!doctype html><title>watch</title><script>
const seen = [];
let connections = 0;
const source = new EventSource(location.hash.slice(1));
source.onopen = () => { connections += 1; };
const told = name => event => {
  seen.push([name, event.lastEventId]);
};
for (const name of ["step", "quotes", "collection", "summary", "result"])
  source.addEventListener(name, told(name));
source.addEventListener("end", told("end"));
source.onerror = () => {
  if (source.readyState !== EventSource.CLOSED) return;
  fetch("/seen", {method: "POST", body: JSON.stringify({seen, connections})});
};
</script>"""


async def heard(rest: Rest, path: str, last_id: str = "") -> EventReader:
    reader = EventReader()
    headers = {"last-event-id": last_id} if last_id else {}
    async with rest.client.stream("GET", path, headers=headers, timeout=None) as response:
        assert response.status_code == httpx.codes.OK
        assert response.headers["content-type"] == "text/event-stream"
        async for text in response.aiter_text():
            reader.feed(text)
    return reader


async def test_events_say_what_the_lines_of_a_watch_say_and_resume(
    rest: Rest, sellers: SimulatedSellers, fresh: Fresh
) -> None:
    await sellers.change(latency_constant_ms=100)
    request_id = await ask(rest, fresh("ordinary"))
    live = await heard(rest, f"{PATH}/{request_id}:events")
    lines = [line async for line in rest.watch(request_id)]
    assert [event.data for event in live.events[:-1]] == lines
    assert [event.event_id for event in live.events[:-1]] == [line["event_id"] for line in lines]
    assert [(event.name, event.data) for event in live.events[-1:]] == [("end", {})]
    assert live.retry_ms == 2000
    for place in (0, 2, len(lines) - 2):
        rest_of_it = await heard(rest, f"{PATH}/{request_id}:events", lines[place]["event_id"])
        assert rest_of_it.events == live.events[place + 1 :]
    for last_id in (lines[-1]["event_id"], "end"):
        over = await rest.client.get(
            f"{PATH}/{request_id}:events", headers={"last-event-id": last_id}
        )
        assert (over.status_code, over.content) == (204, b"")


async def test_prices_come_as_events_too(rest: Rest, fresh: Fresh) -> None:
    path = f"/api/v1/books/{fresh('ordinary')}/quotes:events"
    reader = await heard(rest, path)
    *batches, summary, end = reader.events
    assert {event.name for event in batches} == {"quotes"}
    assert (summary.name, end.name) == ("summary", "end")
    assert summary.data["summary"]["best_total"] == 24.99
    over = await rest.client.get(path, headers={"last-event-id": "end"})
    assert over.status_code == 204


async def test_events_of_another_customer_s_request_do_not_exist(
    rest: Rest, mesh: LocalMesh, fresh: Fresh
) -> None:
    request_id = await ask(rest, fresh("ordinary"))
    headers = {"authorization": f"Bearer {mesh.token('mallory')}"}
    for last_id in ("", "end"):
        answer = await rest.client.get(
            f"{PATH}/{request_id}:events", headers={**headers, "last-event-id": last_id}
        )
        assert answer.status_code == 404
        assert answer.json()["details"][0]["reason"] == "PURCHASE_REQUEST_NOT_FOUND"


class OwnServer:
    """A customer's own web server: a page, and the API behind it with the token added.

    Attributes:
        url: where it is.
        requests: paths of the API that the browser asked for, with the ``Last-Event-ID`` that it sent.
        statuses: how they were answered.
        seen: what the page has seen, once it has said so.

    """

    def __init__(self, api: str, token: str) -> None:
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self.statuses: list[int] = []
        self.seen: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        self._api, self._token = api, token

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *lines = head.split("\r\n")
            _, path, _ = line.split(" ")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in lines if line)
            }
            if path.startswith("/api/"):
                await self._pass_on(path, headers.get("last-event-id", ""), writer)
            elif path == "/seen":
                body = await reader.readexactly(int(headers["content-length"]))
                self.seen.set_result(json.loads(body))
                writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            else:
                head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n"
                writer.write((head + PAGE).encode())
            await writer.drain()
        writer.close()

    async def _pass_on(self, path: str, last_id: str, writer: asyncio.StreamWriter) -> None:
        self.requests.append((path, last_id))
        headers = {"authorization": f"Bearer {self._token}"}
        if last_id:
            headers["last-event-id"] = last_id
        async with (
            httpx.AsyncClient(base_url=self._api, timeout=None, trust_env=False) as client,
            client.stream("GET", path, headers=headers) as response,
        ):
            self.statuses.append(response.status_code)
            kind = response.headers.get("content-type", "text/plain")
            head = f"HTTP/1.1 {response.status_code} -\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode())
            async for part in response.aiter_bytes():
                writer.write(part)
                await writer.drain()


@pytest.mark.parametrize("what", ["watch", "prices"])
async def test_a_browser_sees_all_of_it_and_stays_away_after_the_end(
    rest: Rest, mesh: LocalMesh, fresh: Fresh, tmp_path: Path, what: str
) -> None:
    """EventSource connects again by itself after the end, is told 204, and closes for good."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no browser: install chromium (apt-get install chromium)")
    book = fresh("ordinary")
    request_id = await ask(rest, book)
    path = f"{PATH}/{request_id}:events"
    if what == "prices":
        path = f"/api/v1/books/{book}/quotes:events"
    server = OwnServer(mesh.rest_url, mesh.token("alice"))
    async with server.running():
        process = await asyncio.create_subprocess_exec(
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-extensions", f"--user-data-dir={tmp_path}"),
            *("--remote-debugging-port=0", f"{server.url}/page#{path}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(60):
                told = await server.seen
        finally:
            process.terminate()
            await process.wait()
    assert server.statuses == [200, 204]
    assert server.requests == [(path, ""), (path, "end")]
    assert told["connections"] == 1
    seen = told["seen"]
    assert isinstance(seen, list)
    assert seen[-1] == ["end", "end"]
    if what == "watch":
        await final(rest, request_id)
        assert [last_id for _, last_id in seen[:-1]] == [
            line["event_id"] async for line in rest.watch(request_id)
        ]
