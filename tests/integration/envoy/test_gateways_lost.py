"""What customers see when gateways go away."""

from __future__ import annotations

import pytest

from tests.e2e.waiting import eventually
from tests.integration.envoy.conftest import PATH, MakeEdge
from tests.integration.envoy.test_rest import BODY, reason

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_one_gateway_lost_costs_one_call_at_most_and_none_left_is_503(
    make_edge: MakeEdge,
) -> None:
    envoy = await make_edge()
    first, second = envoy.gateways
    async with envoy.client() as client:
        for _ in range(10):
            assert (await client.post(PATH, json=BODY)).status_code == 202
        assert {call.gateway for call in envoy.calls} == {0, 1}

        # A POST that is cut off in the middle may have been worked on, so its caller has to be told.
        await first.stop(None)
        answers = [(await client.post(PATH, json=BODY)).status_code for _ in range(3)]
        assert set(answers[1:]) == {202}
        for _ in range(30):
            assert (await client.post(PATH, json=BODY)).status_code == 202
            assert envoy.calls[-1].gateway == 1

        await second.stop(None)
        response = await client.post(PATH, json=BODY)
    assert (response.status_code, reason(response)) == (503, "UNAVAILABLE")
    assert response.json()["code"] == 14
    assert response.json()["details"][1] == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retry_delay": "1s",
    }


@pytest.mark.parametrize("way", ["r1:watch", "r1:events"])
async def test_one_gateway_lost_costs_no_stream_that_is_only_being_opened(
    make_edge: MakeEdge, way: str
) -> None:
    """It only reads: the other gateway is asked."""
    envoy = await make_edge()
    envoy.go_on.set()
    async with envoy.client() as client:
        for _ in range(10):
            assert (await client.get(f"{PATH}/{way}")).status_code == 200
        assert {call.gateway for call in envoy.calls} == {0, 1}
        await envoy.gateways[0].stop(None)
        answers = [(await client.get(f"{PATH}/{way}")).status_code for _ in range(20)]
    assert 200 in answers

    async def logged() -> list[dict[str, object]] | None:
        lines = await envoy.log_lines(lambda line: str(line.get("route")).startswith("Watch"))
        return lines if len(lines) == 30 else None

    # UH: on a busy machine the other one may be late to say that it is well. What was lost with the first would be UF.
    assert {line["flags"] for line in await eventually(logged, 20)} <= {"-", "UH", None}
