"""Events of the payment provider: hints that lead to a look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mesh import errors
from orchestrator.app.payment_events import PaymentEvents
from orchestrator.ports import ForgedEvent, ProviderEvent
from tests.fakes.market import ScriptedSeller

if TYPE_CHECKING:
    from orchestrator.ports import PurchaseView
    from tests.integration.orchestrator.conftest import World


def verified(payload: bytes, signature: str) -> ProviderEvent | None:
    """Tell events as the provider's adapter does: the payload is the event's id and the payment's."""
    if signature != "good":
        raise ForgedEvent("not signed")
    event_id, _, provider_id = payload.decode().partition(" ")
    return ProviderEvent(event_id, provider_id, None) if provider_id else None


@pytest.fixture
def events(world: World) -> PaymentEvents:
    return PaymentEvents(
        world.store, world.records, world.broadcast, verify=verified, wake_worker=lambda: True
    )


async def told(world: World, view: PurchaseView) -> list[str]:
    dossier = await world.operators.inspect(view.request_id)
    return [observation.observed_by for observation in dossier.observations]


async def test_an_event_is_noted_once_however_often_it_comes(
    world: World, events: PaymentEvents
) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    provider_id = (await world.operators.inspect(view.request_id)).payment.provider_id
    for event_id in ("evt_1", "evt_1", "evt_2", "evt_1"):
        await events.receive(f"{event_id} {provider_id}".encode(), "good")
    assert await told(world, view) == ["provider", "provider"]
    async with world.working():
        await world.reached(view.request_id, "done")
    await world.audit(view.request_id)


@pytest.mark.parametrize("payload", [b"evt_1", b"evt_1 somebody_elses"])
async def test_an_event_that_is_about_no_payment_of_ours_is_taken_and_forgotten(
    world: World, events: PaymentEvents, payload: bytes
) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    await events.receive(payload, "good")
    assert await told(world, view) == []


async def test_a_forged_event_is_refused(events: PaymentEvents) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await events.receive(b"evt_1 p", "forged")
    assert caught.value.reason == "SIGNATURE_INVALID"


async def test_a_provider_without_events_has_none(world: World) -> None:
    deaf = PaymentEvents(
        world.store, world.records, world.broadcast, verify=None, wake_worker=lambda: True
    )
    with pytest.raises(errors.Unimplemented):
        await deaf.receive(b"evt_1 p", "good")
