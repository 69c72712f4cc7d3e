"""The page about the API, and the document that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.integration.envoy.conftest import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[3]
FILES = {
    "/docs": ("deploy/envoy/page/index.html", "text/html; charset=utf-8"),
    "/docs/page.js": ("deploy/envoy/page/page.js", "text/javascript; charset=utf-8"),
    "/docs/swagger-ui.js": (
        "third_party/swagger-ui/swagger-ui-bundle.js",
        "text/javascript; charset=utf-8",
    ),
    "/docs/swagger-ui.css": ("third_party/swagger-ui/swagger-ui.css", "text/css; charset=utf-8"),
    "/openapi.yaml": ("docs/openapi.yaml", "application/yaml"),
}


@pytest.fixture
def anybody(envoy: Edge) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False)


@pytest.mark.parametrize("path", FILES)
async def test_anybody_may_read_it(anybody: httpx.AsyncClient, path: str) -> None:
    file, content_type = FILES[path]
    async with anybody as client:
        got = await client.get(path)
        asked = await client.head(path)
        posted = await client.post(path)
    assert (got.status_code, asked.status_code) == (200, 200)
    assert got.content == (ROOT / file).read_bytes()
    assert got.headers["content-type"] == asked.headers["content-type"] == content_type
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
    assert posted.json()["details"][0]["reason"] == "METHOD_NOT_ALLOWED"


async def test_it_loads_nothing_from_elsewhere(anybody: httpx.AsyncClient) -> None:
    async with anybody as client:
        page = await client.get("/docs")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
            assert (await client.get(path)).status_code == 200
    assert not re.search(r'(?:src|href)="(?!/|data:)', page.text)


@pytest.mark.parametrize("path", ["/docs/", "/docs/other.js", "/openapi.json", "/docsx"])
async def test_there_is_nothing_else(envoy: Edge, path: str) -> None:
    async with envoy.client() as client:
        assert (await client.get(path)).status_code == 404
