"""One trace from the customer's call to every call of a seller."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.e2e.collector import Collector, Span
from tests.e2e.conftest import SELLERS, Fresh
from tests.e2e.customers import PATH, SHOULD_BE_SO_WITHIN_S, Rest, all_answer
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

EXPORTED_WITHIN_S = 60.0


def way(span: Span, spans: dict[str, Span]) -> tuple[str, ...]:
    """Give the services on the way from a span up, each once, and the parent that is not among the spans."""
    services = [span.service]
    while span.parent_id in spans:
        span = spans[span.parent_id]
        if span.service != services[-1]:
            services.append(span.service)
    return (*services, span.parent_id)


async def test_a_trace_spans_the_mesh_from_rest_to_the_sellers(
    rest: Rest, collector: Collector, fresh: Fresh
) -> None:
    caller = uuid4().hex[:16]

    async def bought_with_all_answers() -> str | None:
        await all_answer(rest, f"unheard-of-{uuid4()}")
        trace_id = uuid4().hex
        response = await rest.client.post(
            PATH,
            json={"book_id": fresh("ordinary"), "max_price": 29.99, "payment_token": "tok_ok"},
            headers={"traceparent": f"00-{trace_id}-{caller}-01"},
        )
        events = [event async for event in rest.watch(response.json()["request_id"])]
        assert events[-1]["result"]["status"] == "purchased"
        [answered] = [event["collection"]["answered"] for event in events if "collection" in event]
        # One that is late on a slow machine has a span too, at some time or other.
        return trace_id if answered == SELLERS else None

    trace_id = await eventually(bought_with_all_answers, SHOULD_BE_SO_WITHIN_S)

    async def complete() -> dict[str, Span] | None:
        spans = {span.span_id: span for span in collector.traces[trace_id]}
        at_sellers = [span for span in spans.values() if span.service == "seller_sim"]
        # Their quotes, a hold and an order.
        done = len(at_sellers) == SELLERS + 2 and all(
            way(span, spans)[-1] == caller for span in at_sellers
        )
        return spans if done else None

    spans = await eventually(complete, EXPORTED_WITHIN_S)
    ways: dict[str, set[tuple[str, ...]]] = {}
    for span in spans.values():
        if span.service == "seller_sim":
            method = span.name.rpartition("/")[2]
            ways.setdefault(method, set()).add(way(span, spans))
    quotes = ways.pop("GetQuote", set()) | ways.pop("BatchGetQuotes", set())
    assert quotes == {("seller_sim", "aggregator", "orchestrator", "gateway", "edge", caller)}
    direct = {("seller_sim", "orchestrator", "gateway", "edge", caller)}
    assert ways == {"HoldBook": direct, "PlaceOrder": direct}
