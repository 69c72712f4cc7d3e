"""Pages from elsewhere (CORS): those whose origin the settings name may call, no others."""

from __future__ import annotations

import httpx
import pytest
import pytest_asyncio

from tests.integration.envoy.conftest import PATH, Edge, MakeEdge

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP, STRANGER = "https://shop.example", "https://stranger.example"
ALLOWED = "access-control-allow-origin"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_edge(make_edge: MakeEdge) -> Edge:
    return await make_edge(edge_origins=f"http://localhost:3000,{SHOP}")


async def asked(edge: Edge, origin: str) -> httpx.Response:
    """Ask, as a browser does before a call, whether a page of this origin may buy."""
    wish = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,idempotency-key",
    }
    async with httpx.AsyncClient(base_url=edge.rest_url, trust_env=False) as client:
        return await client.options(PATH, headers=wish)


async def test_a_browser_may_ask_without_a_token(open_edge: Edge) -> None:
    answer = await asked(open_edge, SHOP)
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, SHOP)
    for header in ("authorization", "content-type", "idempotency-key", "last-event-id"):
        assert header in answer.headers["access-control-allow-headers"]
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert method in answer.headers["access-control-allow-methods"]


async def test_a_page_may_read_answers_and_refusals(open_edge: Edge) -> None:
    async with open_edge.client() as client:
        good = await client.get(PATH, headers={"origin": SHOP})
        refused = await client.get(PATH, headers={"origin": SHOP, "authorization": "Bearer no"})
        unknown = await client.get(f"{PATH}/unknown", headers={"origin": SHOP})
    assert [answer.status_code for answer in (good, refused, unknown)] == [200, 401, 404]
    for answer in (good, refused, unknown):
        assert answer.headers[ALLOWED] == SHOP
        assert "location" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


async def test_events_reach_a_page(open_edge: Edge) -> None:
    open_edge.go_on.set()
    async with open_edge.client() as client:
        events = await client.get(f"{PATH}/r1:events", headers={"origin": SHOP})
    assert (events.status_code, events.headers[ALLOWED]) == (200, SHOP)


async def test_pages_of_others_may_not(open_edge: Edge) -> None:
    answer = await asked(open_edge, STRANGER)
    async with open_edge.client() as client:
        got = await client.get(PATH, headers={"origin": STRANGER})
    assert ALLOWED not in answer.headers
    assert ALLOWED not in got.headers


async def test_unless_settings_name_them_no_pages_may(envoy: Edge) -> None:
    answer = await asked(envoy, SHOP)
    async with envoy.client() as client:
        got = await client.get(PATH, headers={"origin": SHOP})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert (answer.status_code, ALLOWED in got.headers) == (401, False)
