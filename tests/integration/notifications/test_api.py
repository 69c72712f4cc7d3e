"""What customers may do with their notifications, as the gateway's and the orchestrator's RPCs do it together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from protovalidate import Validator

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh.orchestrator.v1 import notifications_pb2_grpc
from gateway.adapters.notifications import GrpcNotificationCenter
from gateway.callers import Callers
from gateway.limits import Limits
from gateway.notification_servicer import NotificationServicer as GatewayServicer
from mesh import errors
from mesh.grpc.errors import translated
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.tokens.identities import JwtIdentities
from mesh.tokens.keys import FileKeys
from orchestrator.domain.notifications import (
    Delivered,
    NotDelivered,
    TryOutcome,
    Undeliverable,
)
from orchestrator.notification_ports import Addresses
from orchestrator.notification_servicer import NotificationServicer
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer
from tests.integration.notifications.conftest import Scripted, World, until

URL = "https://receiver.test/hook"
MAIL = "alice@customers.test"


class Caller:
    """A customer."""

    def __init__(
        self, stub: customer_pb2_grpc.NotificationServiceAsyncStub, token: str | None
    ) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def create(self, url: str = URL) -> pb.CreateWebhookEndpointResponse:
        request = pb.CreateWebhookEndpointRequest(url=url)
        with translated():
            return await self._stub.CreateWebhookEndpoint(request, metadata=self._metadata)

    async def endpoints(self) -> list[pb.WebhookEndpoint]:
        request = pb.ListWebhookEndpointsRequest()
        with translated():
            listed = await self._stub.ListWebhookEndpoints(request, metadata=self._metadata)
        return list(listed.endpoints)

    async def rotate(self, endpoint_id: str) -> str:
        request = pb.RotateWebhookSecretRequest(endpoint_id=endpoint_id)
        with translated():
            rotated = await self._stub.RotateWebhookSecret(request, metadata=self._metadata)
        return rotated.secret

    async def enable(self, endpoint_id: str) -> pb.WebhookEndpoint:
        request = pb.EnableWebhookEndpointRequest(endpoint_id=endpoint_id)
        with translated():
            enabled = await self._stub.EnableWebhookEndpoint(request, metadata=self._metadata)
        return enabled.endpoint

    async def delete(self, endpoint_id: str) -> Message:
        request = pb.DeleteWebhookEndpointRequest(endpoint_id=endpoint_id)
        with translated():
            return await self._stub.DeleteWebhookEndpoint(request, metadata=self._metadata)

    async def set_email(self, email: str) -> Addresses:
        request = pb.SetNotificationEmailRequest(email=email)
        with translated():
            answer = await self._stub.SetNotificationEmail(request, metadata=self._metadata)
        return _addresses(answer)

    async def confirm(self, code: str) -> str:
        request = pb.ConfirmNotificationEmailRequest(code=code)
        with translated():
            answer = await self._stub.ConfirmNotificationEmail(request, metadata=self._metadata)
        return answer.email

    async def email(self) -> Addresses:
        request = pb.GetNotificationEmailRequest()
        with translated():
            answer = await self._stub.GetNotificationEmail(request, metadata=self._metadata)
        return _addresses(answer)

    async def deliveries(
        self, size: int = 0, token: str = "", request_id: str = ""
    ) -> pb.ListDeliveriesResponse:
        request = pb.ListDeliveriesRequest(page_size=size, page_token=token, request_id=request_id)
        with translated():
            return await self._stub.ListDeliveries(request, metadata=self._metadata)


class Doors:
    """Makes customers."""

    def __init__(
        self, stub: customer_pb2_grpc.NotificationServiceAsyncStub, issuer: Issuer
    ) -> None:
        self._stub = stub
        self._issuer = issuer

    def caller(self, name: str) -> Caller:
        return Caller(self._stub, self._issuer.token(name))

    def nobody(self) -> Caller:
        return Caller(self._stub, None)


@pytest.fixture
async def doors(world: World, tmp_path: Path) -> AsyncIterator[Doors]:
    """Run a gateway before an orchestrator."""
    issuer = Issuer(tmp_path / "jwks.json")
    async with AsyncExitStack() as stack:

        async def serve(add: object, servicer: object) -> str:
            interceptor = ServiceInterceptor(
                Validator(), default_timeout_s=10.0, unbounded=[], only="bookmesh."
            )
            server = grpc.aio.server(interceptors=[interceptor])
            assert callable(add)
            add(servicer, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return f"127.0.0.1:{port}"

        behind = await serve(
            notifications_pb2_grpc.add_NotificationServiceServicer_to_server,
            NotificationServicer(world.notifications),
        )
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(behind))
        center = GrpcNotificationCenter(notifications_pb2_grpc.NotificationServiceStub(channel))
        before = await serve(
            customer_pb2_grpc.add_NotificationServiceServicer_to_server,
            GatewayServicer(
                Callers(
                    JwtIdentities(FileKeys(issuer.file), issuer=ISSUER, audience=AUDIENCE),
                    Limits(calls=50, streams=50, all_streams=50),
                ),
                center,
            ),
        )
        customers = await stack.enter_async_context(grpc.aio.insecure_channel(before))
        yield Doors(customer_pb2_grpc.NotificationServiceStub(customers), issuer)


async def test_an_endpoint_is_registered_listed_and_removed(doors: Doors) -> None:
    alice = doors.caller("alice")
    created = await alice.create()
    assert created.secret.startswith("whsec_")
    assert created.endpoint.url == URL
    assert created.endpoint.enabled
    assert created.endpoint.disabled_reason == ""
    assert created.endpoint.HasField("create_time")
    assert await alice.endpoints() == [created.endpoint]
    await alice.delete(created.endpoint.endpoint_id)
    assert await alice.endpoints() == []


async def test_an_endpoint_of_another_customer_is_as_one_that_does_not_exist(doors: Doors) -> None:
    created = await doors.caller("alice").create()
    bob = doors.caller("bob")
    assert await bob.endpoints() == []
    answers = []
    for endpoint_id in (created.endpoint.endpoint_id, str(uuid4()), "no uuid"):
        for call in (bob.rotate, bob.enable, bob.delete):
            with pytest.raises(errors.NotFound) as caught:
                await call(endpoint_id)
            answers.append((caught.value.reason, caught.value.message))
    assert len(set(answers)) == 1
    assert answers[0][0] == "WEBHOOK_ENDPOINT_NOT_FOUND"
    assert await doors.caller("alice").endpoints() == [created.endpoint]


async def test_there_are_ten_endpoints_at_most_however_many_ask_at_once(doors: Doors) -> None:
    alice = doors.caller("alice")
    results = await asyncio.gather(*(alice.create() for _ in range(14)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, errors.ResourceExhausted)]
    assert len(refused) == 4
    assert refused[0].reason == "TOO_MANY_WEBHOOK_ENDPOINTS"
    endpoints = await alice.endpoints()
    assert len(endpoints) == 10
    await doors.caller("bob").create()
    await alice.delete(endpoints[0].endpoint_id)
    await alice.create()


@pytest.mark.parametrize(
    "url",
    ["http://receiver.test/", "https://inside.test/", "nonsense", "https://a:b@receiver.test"],
)
async def test_an_address_that_must_not_be_sent_to_is_refused(
    world: World, doors: Doors, url: str
) -> None:
    world.names.known |= {"inside.test": ["10.0.0.1"], "receiver.test": ["93.184.215.14"]}
    with pytest.raises(errors.InvalidArgument) as caught:
        await doors.caller("alice").create(url)
    assert caught.value.reason == "WEBHOOK_URL_INVALID"
    assert [field.field for field in caught.value.fields] == ["url"]


async def test_each_secret_is_another_one(doors: Doors) -> None:
    alice = doors.caller("alice")
    created = await alice.create()
    secrets = {created.secret, (await alice.create()).secret}
    secrets.add(await alice.rotate(created.endpoint.endpoint_id))
    assert len(secrets) == 3


async def test_an_address_is_told_by_email_once_its_code_came_back(
    world: World, doors: Doors
) -> None:
    alice = doors.caller("alice")
    assert await alice.email() == Addresses(None, None)
    assert await alice.set_email(MAIL) == Addresses(None, MAIL)
    await world.ended()
    async with world.notifying():
        await until(lambda: _all_spread(world))
    assert await world.states() == []
    [(receiver, letter)] = world.postman.sent
    assert receiver == MAIL
    assert world.postman.code(MAIL) in letter.html
    assert await alice.confirm(world.postman.code(MAIL)) == MAIL
    assert await alice.email() == Addresses(MAIL, None)
    assert await doors.caller("bob").email() == Addresses(None, None)
    assert await alice.set_email(MAIL) == Addresses(MAIL, None)
    assert len(world.postman.sent) == 1
    assert await alice.set_email("") == Addresses(None, None)


async def test_the_address_that_is_confirmed_stays_until_the_next_one_is(
    world: World, doors: Doors
) -> None:
    alice = doors.caller("alice")
    await world.confirmed("alice", MAIL)
    assert await alice.set_email("new@b.test") == Addresses(MAIL, "new@b.test")
    assert await alice.set_email("newer@b.test") == Addresses(MAIL, "newer@b.test")
    with pytest.raises(errors.FailedPrecondition):
        await alice.confirm(world.postman.code("new@b.test"))
    assert await alice.confirm(world.postman.code("newer@b.test")) == "newer@b.test"
    assert await alice.email() == Addresses("newer@b.test", None)
    await alice.set_email("other@b.test")
    assert await alice.set_email("newer@b.test") == Addresses("newer@b.test", None)
    with pytest.raises(errors.FailedPrecondition):
        await alice.confirm(world.postman.code("other@b.test"))
    await alice.set_email("other@b.test")
    assert await alice.set_email("") == Addresses(None, None)
    with pytest.raises(errors.FailedPrecondition):
        await alice.confirm(world.postman.code("other@b.test"))


@pytest.mark.parametrize("why", ["another's", "used", "old", "guessed", "sealed"])
async def test_a_code_is_good_once_for_an_hour_for_its_customer_and_for_few_guesses(
    world: World, doors: Doors, why: str
) -> None:
    alice, asks = doors.caller("alice"), doors.caller("alice")
    await alice.set_email(MAIL)
    code = world.postman.code(MAIL)
    match why:
        case "another's":
            asks = doors.caller("bob")
        case "used":
            await alice.confirm(code)
        case "old":
            await world.pool.execute(
                "UPDATE orchestrator.email_code SET sent_at = sent_at - interval '1 hour'"
            )
        case "guessed":
            wrong = f"{(int(code) + 1) % 10**8:08}"
            for _ in range(5):
                with pytest.raises(errors.FailedPrecondition):
                    await alice.confirm(wrong)
            assert await alice.email() == Addresses(None, None)
        case _:
            assert why == "sealed"
            await world.pool.execute("UPDATE orchestrator.email_code SET key_id = 'taken-out'")
    with pytest.raises(errors.FailedPrecondition) as caught:
        await asks.confirm(code)
    assert caught.value.reason == "EMAIL_CODE_WRONG"
    assert (await alice.email()).email == (MAIL if why == "used" else None)


async def test_nobody_is_sent_more_than_five_codes_a_day(world: World, doors: Doors) -> None:
    """Neither by one customer nor by several: other people's boxes are not filled by way of us."""
    alice, bob = doors.caller("alice"), doors.caller("bob")
    answers = await asyncio.gather(
        *(alice.set_email(f"{number}@b.test") for number in range(7)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, errors.ResourceExhausted)]
    assert [answer.reason for answer in refused] == ["TOO_MANY_EMAIL_CODES"] * 2
    assert len(world.postman.sent) == 5
    waits = (await alice.email()).unconfirmed
    assert waits is not None
    assert await alice.confirm(world.postman.code(waits)) == waits
    for number in range(5):
        await doors.caller(f"customer-{number}").set_email("Bob@B.test")
    with pytest.raises(errors.ResourceExhausted):
        await bob.set_email("bob@b.test")
    await world.pool.execute(
        "UPDATE orchestrator.email_code SET sent_at = sent_at - interval '1 day'"
    )
    assert await bob.set_email("bob@b.test") == Addresses(None, "bob@b.test")
    await world.store.forget(30)
    assert await world.pool.fetchval("SELECT count(*) FROM orchestrator.email_code") == 1


async def test_a_code_that_cannot_be_sent_is_told_at_once(world: World, doors: Doors) -> None:
    alice = doors.caller("alice")
    world.postman.outcomes = [Undeliverable("the mail server refused it with code 550")]
    with pytest.raises(errors.InvalidArgument) as refused:
        await alice.set_email(MAIL)
    assert [field.field for field in refused.value.fields] == ["email"]
    assert await alice.email() == Addresses(None, None)
    world.postman.outcomes = [NotDelivered("the mail server did not take it")]
    with pytest.raises(errors.Unavailable) as later:
        await alice.set_email(MAIL)
    assert (later.value.reason, later.value.retry_after_s) == ("EMAIL_NOT_SENT", 60)
    assert world.postman.sent == []


@pytest.mark.parametrize("email", ["nobody", "a@b.test\r\nBcc: c@d.test", "a@b.test, c@d.test"])
async def test_what_is_no_address_is_refused(doors: Doors, email: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await doors.caller("alice").set_email(email)
    assert [field.field for field in caught.value.fields] == ["email"]


async def test_the_log_is_read_page_by_page_newest_first(world: World, doors: Doors) -> None:
    async def send(url: str) -> TryOutcome:
        return Delivered(204) if "good" in url else NotDelivered("it answered 500", 500)

    alice, bob = doors.caller("alice"), doors.caller("bob")
    await alice.create("https://good.test/")
    await alice.create("https://bad.test/")
    requests = [str(await world.ended()) for _ in range(3)]

    async def tried() -> bool:
        deliveries = (await alice.deliveries()).deliveries
        return len(deliveries) == 6 and all(one.last_error or one.last_status for one in deliveries)

    async with world.notifying(webhooks=Scripted(send), schedule_s=(0.0, 3600.0)):
        await until(tried)
    everything = list((await alice.deliveries()).deliveries)
    pages, token = [], ""
    while True:
        page = await alice.deliveries(4, token)
        pages.append(list(page.deliveries))
        if not (token := page.next_page_token):
            break
    assert [len(page) for page in pages] == [4, 2]
    assert [one for page in pages for one in page] == everything
    words = pb.DeliveryState.Word
    good, bad = (
        next(one for one in everything if host in one.receiver) for host in ("good", "bad")
    )
    assert (good.state, good.tries, good.last_status) == (words.delivered, 1, 204)
    assert not good.HasField("next_try_time")
    assert (bad.state, bad.tries, bad.last_status) == (words.waiting, 1, 500)
    assert bad.last_error == "it answered 500"
    assert bad.HasField("next_try_time")
    assert bad.HasField("last_try_time")
    assert {one.type for one in everything} == {"purchase_request.final"}
    of_one = (await alice.deliveries(request_id=requests[1])).deliveries
    assert [one.request_id for one in of_one] == [requests[1]] * 2
    assert not (await alice.deliveries(request_id="no uuid")).deliveries
    assert not (await bob.deliveries()).deliveries
    assert not (await bob.deliveries(request_id=requests[0])).deliveries
    with pytest.raises(errors.InvalidArgument) as caught:
        await alice.deliveries(token="made up")
    assert [field.field for field in caught.value.fields] == ["page_token"]


async def test_nobody_gets_in_without_a_token(doors: Doors) -> None:
    nobody = doors.nobody()
    for call in (nobody.endpoints, nobody.create, nobody.email, nobody.deliveries):
        with pytest.raises(errors.Unauthenticated):
            await call()


def _addresses(
    answer: pb.SetNotificationEmailResponse | pb.GetNotificationEmailResponse,
) -> Addresses:
    unconfirmed = answer.unconfirmed_email if answer.HasField("unconfirmed_email") else None
    return Addresses(answer.email or None, unconfirmed)


async def _all_spread(world: World) -> bool:
    waiting = await world.pool.fetchval(
        "SELECT count(*) FROM orchestrator.outbox WHERE spread_at IS NULL"
    )
    return bool(waiting == 0)
