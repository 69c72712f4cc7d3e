"""What customers see when gateways go away."""

from __future__ import annotations

import pytest

from tests.integration.envoy.conftest import PATH, MakeEdge
from tests.integration.envoy.test_rest import BODY, reason

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_one_gateway_lost_costs_one_call_at_most_and_none_left_is_503(
    make_edge: MakeEdge,
) -> None:
    envoy = await make_edge()
    first, second = envoy.gateways
    async with envoy.client() as client:

        async def post() -> int:
            return (await client.post(PATH, json=BODY)).status_code

        assert {await post() for _ in range(10)} == {202}
        assert {call.gateway for call in envoy.calls} == {0, 1}

        # A POST that is cut off in the middle may have been worked on, so its caller has to be told.
        await first.stop(None)
        codes = [await post() for _ in range(30)]
        assert codes.count(202) >= len(codes) - 1
        assert {call.gateway for call in envoy.calls[-20:]} == {1}

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
    assert set(answers) == {200}
