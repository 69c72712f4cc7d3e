"""The simulated payment provider by itself, over plain HTTP: what Stripe documents, and the faults that are planned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.psp import PspSim, running_psp_sim

DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def running_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PspSim]:
    """Run the simulator for all tests."""
    with running_psp_sim(tmp_path_factory.mktemp("psp")) as running:
        yield running


@pytest.fixture
async def sim(running_sim: PspSim) -> PspSim:
    """Give the simulator with nothing in it."""
    await running_sim.forget()
    return running_sim


@pytest.fixture
async def http(sim: PspSim) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that shows the key."""
    async with sim.client() as client:
        yield client


def form(**changes: str) -> dict[str, str]:
    """Give what an authorization sends."""
    return {
        "amount": "2999",
        "currency": "usd",
        "capture_method": "manual",
        "confirm": "true",
        "off_session": "true",
        "payment_method": "pm_card_visa",
        "metadata[request_id]": "r1",
    } | changes


async def send(
    http: httpx.AsyncClient, key: str | None = None, path: str = "", **changes: str
) -> httpx.Response:
    """Authorize, or change what a path names."""
    headers = {"Idempotency-Key": key} if key else {}
    data = changes if path else form(**changes)
    return await http.post(f"/v1/{path or 'payment_intents'}", data=data, headers=headers)


async def authorized(http: httpx.AsyncClient) -> str:
    response = await send(http)
    assert response.status_code == 200
    name: str = response.json()["id"]
    return name


async def listed(http: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    response = await http.get("/v1/payment_intents", params=query)
    assert response.status_code == 200
    data: list[dict[str, Any]] = response.json()["data"]
    return data


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


@pytest.mark.parametrize(
    ("fault", "changes", "status"),
    [
        (None, {}, 200),
        (None, {"payment_method": "pm_card_chargeDeclined"}, 402),
        ("error_before", {}, 500),
        ("error_after", {}, 500),
    ],
)
async def test_the_first_answer_is_given_again(
    sim: PspSim, http: httpx.AsyncClient, fault: str | None, changes: dict[str, str], status: int
) -> None:
    if fault:
        await sim.plan("authorize", fault)
    first, second = [await send(http, "k", **changes) for _ in range(2)]
    assert (first.status_code, second.status_code) == (status, status)
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(await listed(http)) == (0 if fault == "error_before" else 1)


async def test_a_key_is_of_one_request(http: httpx.AsyncClient) -> None:
    name = (await send(http, "k")).json()["id"]
    for response in (
        await send(http, "k", amount="3000"),
        await send(http, "k", path=f"payment_intents/{name}/capture"),
    ):
        assert (response.status_code, error(response)["type"]) == (400, "idempotency_error")


async def test_a_key_in_use_is_a_conflict(sim: PspSim, http: httpx.AsyncClient) -> None:
    busy: list[httpx.Response] = []
    # Again where the machine is so slow that the others came when the first was over.
    while not busy:
        await sim.forget()
        await sim.plan("authorize", "delay_before", delay_s=1.0)
        responses = await asyncio.gather(*(send(http, "k") for _ in range(3)))
        assert {r.status_code for r in responses} <= {200, 409}
        busy = [r for r in responses if r.status_code == 409]
    assert len(busy) < 3
    assert error(busy[0])["code"] == "idempotency_key_in_use"
    assert (await send(http, "k")).status_code == 200
    assert len(await listed(http)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "9.99"},
        {"currency": "dollars"},
        {"payment_method": "pm_card_nobodys"},
        {"capture_method": "automatic"},
        {"payment_method_types[0]": "card"},
        {"metadata[a][b]": "c"},
    ],
    ids=str,
)
async def test_wrong_parameters_are_refused_and_not_kept(
    http: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    refused = await send(http, "k", **changes)
    assert (refused.status_code, error(refused)["type"]) == (400, "invalid_request_error")
    assert (await send(http, "k")).status_code == 200


async def test_a_key_is_forgotten_after_a_day_and_then_runs_again(
    sim: PspSim, http: httpx.AsyncClient
) -> None:
    await send(http, "k")
    await sim.advance(DAY_S - 600)
    assert (await send(http, "k")).headers["Idempotent-Replayed"] == "true"
    await sim.advance(600)
    await send(http, "k")
    assert len(await listed(http)) == 2


@pytest.mark.parametrize(("kind", "made"), [("cut_before", 0), ("cut_after", 1)])
async def test_cuts_the_connection(
    sim: PspSim, http: httpx.AsyncClient, kind: str, made: int
) -> None:
    await sim.plan("authorize", kind)
    with pytest.raises(httpx.TransportError):
        await send(http, "k")
    assert len(await listed(http)) == made
    assert (await send(http, "k")).status_code == 200
    assert len(await listed(http)) == 1


@pytest.mark.parametrize(("kind", "status"), [("unavailable", 503), ("rate_limited", 429)])
async def test_refuses_without_keeping_that(
    sim: PspSim, http: httpx.AsyncClient, kind: str, status: int
) -> None:
    await sim.plan("authorize", kind, times=2)
    assert [(await send(http, "k")).status_code for _ in range(3)] == [status, status, 200]


async def test_a_fault_may_be_for_one_key_and_be_called_off(
    sim: PspSim, http: httpx.AsyncClient
) -> None:
    await sim.plan("authorize", "unavailable", key="k2", times=9)
    assert [(await send(http, key)).status_code for key in ("k1", "k2")] == [200, 503]
    await http.delete("/_sim/faults")
    assert (await send(http, "k2")).status_code == 200


async def test_says_what_is_wrong_with_a_plan(http: httpx.AsyncClient) -> None:
    response = await http.post("/_sim/faults", json={"operation": "authorise", "kind": "cut_after"})
    assert response.status_code == 400
    assert response.json()["problems"][0]["loc"] == ["operation"]


async def test_lets_nobody_in_without_the_key(sim: PspSim) -> None:
    async with httpx.AsyncClient(base_url=sim.url) as stranger:
        for path in ("/v1/payment_intents", "/_sim/faults"):
            assert (await stranger.get(path)).status_code == 401


async def test_a_charge_says_what_became_of_it(http: httpx.AsyncClient) -> None:
    """As at Stripe, what a capture releases counts as refunded."""
    name = await authorized(http)
    await send(http, path=f"payment_intents/{name}/capture", amount_to_capture="2000")
    await send(http, path="refunds", payment_intent=name, amount="500")
    found = (await http.get(f"/v1/payment_intents/{name}?expand[0]=latest_charge")).json()
    charge = found["latest_charge"]
    assert (found["amount_received"], charge["amount_captured"]) == (2000, 2000)
    assert charge["amount_refunded"] == 999 + 500


@pytest.mark.parametrize("first", ["capture", "cancel"])
@pytest.mark.parametrize("then", ["capture", "cancel"])
async def test_a_payment_ends_once(http: httpx.AsyncClient, first: str, then: str) -> None:
    name = await authorized(http)
    assert (await send(http, path=f"payment_intents/{name}/{first}")).status_code == 200
    refused = await send(http, path=f"payment_intents/{name}/{then}")
    assert refused.status_code == 400
    assert error(refused)["code"] == "payment_intent_unexpected_state"


async def test_an_authorization_lapses(sim: PspSim, http: httpx.AsyncClient) -> None:
    name = await authorized(http)
    await sim.advance(7 * DAY_S)
    assert (await listed(http))[0]["status"] == "canceled"
    found = (await http.get(f"/v1/payment_intents/{name}")).json()
    assert (found["status"], found["cancellation_reason"]) == ("canceled", "automatic")
    refused = await send(http, path=f"payment_intents/{name}/capture")
    assert error(refused)["code"] == "payment_intent_unexpected_state"


async def test_pages_through_a_list_newest_first(sim: PspSim, http: httpx.AsyncClient) -> None:
    names = []
    for _ in range(5):
        names.append(await authorized(http))
        await sim.advance(10)
    seen: list[str] = []
    while len(seen) < 5:
        after = {"starting_after": seen[-1]} if seen else {}
        seen += [entry["id"] for entry in await listed(http, limit="2", **after)]
    assert seen == names[::-1]
    middle = (await http.get(f"/v1/payment_intents/{names[2]}")).json()["created"]
    since = await listed(http, **{"created[gte]": str(middle)})
    assert [entry["id"] for entry in since] == names[:1:-1]
    before = await listed(http, **{"created[lt]": str(middle)})
    assert [entry["id"] for entry in before] == names[1::-1]


async def test_tells_of_an_event_that_it_knows(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/events/evt_nobodys")).status_code == 404


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_what_was_answered_survives_its_end(tmp_path: Path, how: str) -> None:
    with running_psp_sim(tmp_path) as sim:
        async with sim.client() as http:
            await sim.advance(3600)
            first = await send(http, "k")
            await sim.plan("capture", "error_after")
            path = f"payment_intents/{first.json()['id']}/capture"
            assert (await send(http, "c", path=path)).status_code == 500
            getattr(sim.process, how)()
            sim.process.wait()
    with running_psp_sim(tmp_path) as sim:
        async with sim.client() as http:
            again = await send(http, "k")
            assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
            assert (await send(http, "c", path=path)).status_code == 500
            assert [entry["status"] for entry in await listed(http)] == ["succeeded"]
            now = await sim.advance(0)
            assert now.timestamp() - first.json()["created"] < 600


def test_has_its_folder_for_itself(tmp_path: Path) -> None:
    with (
        running_psp_sim(tmp_path),
        pytest.raises(AssertionError, match="did not start"),
        running_psp_sim(tmp_path),
    ):
        pass
