"""Who may connect inside the mesh, and call what: real servers and channels, real certificates."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from protovalidate import Validator

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1 import aggregator_pb2_grpc as pb_grpc
from deploy.local import certificates as issuing
from deploy.local.certificates import ensure_certificates
from deploy.local.data import DataFolder
from mesh import errors
from mesh.clock import SystemClock
from mesh.grpc import tls
from mesh.grpc.channel import open_channel
from mesh.grpc.errors import translated
from mesh.grpc.interceptor import Context, ServiceInterceptor
from mesh.grpc.tls import CertificateProblem, Certificates
from mesh.settings import ServiceSettings
from tests.fakes.clock import until
from tests.fakes.proxy import proxy

REGISTRY = "bookmesh.aggregator.v1.RegistryService"
LONG_AGO = timedelta(days=400)
TIMEOUT_S = 10.0


class Registry(pb_grpc.RegistryServiceServicer):
    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def RegisterSellers(
        self, request: pb.RegisterSellersRequest, context: Context
    ) -> pb.RegisterSellersResponse:
        raise NotImplementedError

    async def SetSellerState(
        self, request: pb.SetSellerStateRequest, context: Context
    ) -> pb.SetSellerStateResponse:
        return pb.SetSellerStateResponse(revision=7)

    async def WatchSellers(
        self, request: pb.WatchSellersRequest, context: Context
    ) -> AsyncIterator[pb.WatchSellersResponse]:
        yield pb.WatchSellersResponse(revision=1)
        await self.go_on.wait()
        yield pb.WatchSellersResponse(revision=2)


@dataclass(slots=True)
class Mesh:
    """A mesh of one server, the aggregator, and whoever calls it."""

    data: DataFolder
    stack: AsyncExitStack
    registry: Registry = field(default_factory=Registry)

    async def serve(self, shown: Certificates) -> str:
        """Serve with a certificate; give the target."""
        interceptor = ServiceInterceptor(
            Validator(),
            default_timeout_s=TIMEOUT_S,
            unbounded=[],
            only="bookmesh.",
            callers={REGISTRY: ("operator",), f"/{REGISTRY}/WatchSellers": ("orchestrator",)},
        )
        server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_RegistryServiceServicer_to_server(self.registry, server)
        healthy = health.aio.HealthServicer()
        await healthy.set(REGISTRY, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(shown))
        await server.start()
        self.stack.push_async_callback(server.stop, None)
        return f"ipv4:127.0.0.1:{port}"

    def shown(self, name: str) -> Certificates:
        return issuing.certificates(self.data, name)

    async def connect(self, target: str, shown: Certificates) -> grpc.aio.Channel:
        return await self.stack.enter_async_context(
            open_channel(target, REGISTRY, certificates=shown)
        )


def folder_in(path: Path, *, age: timedelta = timedelta()) -> DataFolder:
    """Make a CA and certificates, as long ago as ``age``."""
    data = DataFolder(path)
    data.prepare()
    ensure_certificates(data, SystemClock().now() - age)
    return data


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        yield Mesh(folder_in(tmp_path / "data"), stack)


async def disable(channel: grpc.aio.Channel) -> int:
    with translated():
        answer = await pb_grpc.RegistryServiceStub(channel).SetSellerState(
            pb.SetSellerStateRequest(seller_ids=["acme"], state=pb.Seller.STATE_DISABLED),
            timeout=TIMEOUT_S,
        )
    return answer.revision


async def test_a_service_that_may_call_is_answered(mesh: Mesh) -> None:
    target = await mesh.serve(mesh.shown("aggregator"))
    assert await disable(await mesh.connect(target, mesh.shown("operator"))) == 7


async def test_a_connection_that_is_slow_to_make_fails_no_call(mesh: Mesh) -> None:
    """The other end may be a second late, as on a busy machine."""
    target = await mesh.serve(mesh.shown("aggregator"))
    async with proxy(int(target.rpartition(":")[2])) as slow:
        slow.hang()
        channel = await mesh.connect(f"ipv4:127.0.0.1:{slow.port}", mesh.shown("operator"))
        call = asyncio.create_task(disable(channel))
        await asyncio.wait({call}, timeout=1.0)
        slow.go_on()
        assert await call == 7
        assert slow.taken == 1


@pytest.mark.parametrize("name", ["envoy", "gateway", "internal", "aggregator", "orchestrator"])
async def test_the_certificate_of_the_wrong_service_is_refused(mesh: Mesh, name: str) -> None:
    target = await mesh.serve(mesh.shown("aggregator"))
    with pytest.raises(errors.PermissionDenied) as caught:
        await disable(await mesh.connect(target, mesh.shown(name)))
    assert caught.value.reason == "CALLER_NOT_ALLOWED"
    assert f"is not for {name}" in caught.value.message


async def test_a_method_may_be_for_others_than_the_rest_of_its_service(mesh: Mesh) -> None:
    target = await mesh.serve(mesh.shown("aggregator"))
    for name, allowed in (("orchestrator", True), ("operator", False)):
        stub = pb_grpc.RegistryServiceStub(await mesh.connect(target, mesh.shown(name)))
        call = stub.WatchSellers(pb.WatchSellersRequest(), timeout=TIMEOUT_S)
        if allowed:
            assert (await anext(aiter(call))).revision == 1
        else:
            with pytest.raises(errors.PermissionDenied), translated():
                await anext(aiter(call))


async def test_health_is_for_everybody_with_a_certificate(mesh: Mesh) -> None:
    target = await mesh.serve(mesh.shown("aggregator"))
    channel = await mesh.connect(target, mesh.shown("gateway"))
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = await check(health_pb2.HealthCheckRequest(service=REGISTRY), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def refused(channel: grpc.aio.Channel) -> str:
    with pytest.raises(errors.Unavailable) as caught:
        await disable(channel)
    return caught.value.message


async def test_clients_that_our_ca_does_not_know_cannot_connect(mesh: Mesh, tmp_path: Path) -> None:
    """No certificate, one of another CA, one that has expired, no TLS at all."""
    target = await mesh.serve(mesh.shown("aggregator"))
    stranger = folder_in(tmp_path / "strange")
    of_another_ca = Certificates(
        stranger.certificate("operator"), stranger.certificate_key("operator"), mesh.data.authority
    )
    issuing.issue(mesh.data, "envoy", SystemClock().now() - LONG_AGO)
    name = tls.named(tls.server_name(REGISTRY))
    roots = grpc.ssl_channel_credentials(mesh.data.authority.read_bytes())
    for channel in (
        await mesh.connect(target, of_another_ca),
        await mesh.connect(target, mesh.shown("envoy")),
        grpc.aio.secure_channel(target, roots, options=name),
        grpc.aio.insecure_channel(target),
    ):
        await refused(channel)
        await channel.close()
    assert await disable(await mesh.connect(target, mesh.shown("operator"))) == 7


async def test_a_server_has_to_be_who_is_called(mesh: Mesh, tmp_path: Path) -> None:
    """It has another's name, is of another CA, or its certificate has expired: the client says so."""
    operator = mesh.shown("operator")
    other = await mesh.serve(mesh.shown("gateway"))
    assert "Hostname Verification" in await refused(await mesh.connect(other, operator))
    stranger = folder_in(tmp_path / "strange")
    strange = await mesh.serve(issuing.certificates(stranger, "aggregator"))
    assert "CERTIFICATE_VERIFY_FAILED" in await refused(await mesh.connect(strange, operator))
    issuing.issue(mesh.data, "aggregator", SystemClock().now() - LONG_AGO)
    expired = await mesh.serve(mesh.shown("aggregator"))
    assert "expired" in await refused(await mesh.connect(expired, operator))


async def test_new_certificates_are_taken_without_a_restart(mesh: Mesh) -> None:
    """A new CA for all: those that are connected go on, new calls and connections use the new certificates."""
    operator, orchestrator = mesh.shown("operator"), mesh.shown("orchestrator")
    target = await mesh.serve(mesh.shown("aggregator"))
    channel = await mesh.connect(target, operator)
    watching = await mesh.connect(target, orchestrator)
    assert await disable(channel) == 7
    stub = pb_grpc.RegistryServiceStub(watching)
    watch = stub.WatchSellers(pb.WatchSellersRequest(), timeout=TIMEOUT_S)
    events = aiter(watch)
    assert (await anext(events)).revision == 1

    old = operator.current()
    mesh.data.authority.unlink()
    ensure_certificates(mesh.data, SystemClock().now())
    assert operator.current() != old
    assert orchestrator.current().roots != old.roots
    assert await disable(channel) == 7
    assert await disable(await mesh.connect(target, mesh.shown("operator"))) == 7
    renewed = cast("tls.RenewedChannel", channel)
    first = renewed._channel
    await until(lambda: renewed.current() is not first)
    assert await disable(channel) == 7
    # A stub that was made before.
    assert (await anext(aiter(stub.WatchSellers(pb.WatchSellersRequest())))).revision == 1
    mesh.registry.go_on.set()
    assert (await anext(events)).revision == 2


async def test_certificates_that_are_refused_leave_a_channel_as_it_is(
    mesh: Mesh, tmp_path: Path
) -> None:
    operator = mesh.shown("operator")
    channel = await mesh.connect(await mesh.serve(mesh.shown("aggregator")), operator)
    assert await disable(channel) == 7
    stranger = folder_in(tmp_path / "strange")
    for ours, theirs in (
        (mesh.data.certificate("operator"), stranger.certificate("operator")),
        (mesh.data.certificate_key("operator"), stranger.certificate_key("operator")),
    ):
        ours.write_bytes(theirs.read_bytes())
    for _ in range(20):
        assert await disable(channel) == 7
    assert operator.current().certificate == stranger.certificate("operator").read_bytes()


def broken_by(change: Callable[[DataFolder], object], path: Path) -> tuple[Certificates, str]:
    """Give certificates that were good, and what is said of files that a change made bad."""
    data = folder_in(path)
    certificates = issuing.certificates(data, "gateway")
    change(data)
    with pytest.raises(CertificateProblem) as caught:
        Certificates(data.certificate("gateway"), data.certificate_key("gateway"), data.authority)
    return certificates, str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.certificate("gateway").unlink(), "cannot read .*gateway.pem: No such"),
        (lambda data: data.certificate("gateway").write_text("x"), "gateway.pem is no certificate"),
        (lambda data: data.certificate_key("gateway").write_text("x"), "is no private key"),
        (lambda data: data.authority.write_text(""), "ca.pem is no certificate"),
        (
            lambda data: data.certificate_key("envoy").rename(data.certificate_key("gateway")),
            "gateway-key.pem is not the key to .*gateway.pem",
        ),
    ],
    ids=["gone", "certificate", "key", "roots", "other key"],
)
def test_files_that_cannot_be_used_are_named_and_leave_those_in_force_that_were(
    tmp_path: Path, change: Callable[[DataFolder], object], said: str
) -> None:
    certificates, problem = broken_by(change, tmp_path)
    assert re.search(said, problem)
    assert certificates.current().certificate.startswith(b"-----BEGIN CERTIFICATE-----")


class OverOldTls:
    """A call over TLS 1.2, with a certificate that would do."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"ssl_tls_version": [b"TLSv1.2"], "peer_dns": [b"operator.bookmesh.internal"]}


def test_calls_over_an_older_tls_are_refused() -> None:
    interceptor = ServiceInterceptor(
        Validator(),
        default_timeout_s=TIMEOUT_S,
        unbounded=[],
        only="bookmesh.",
        callers={REGISTRY: ("operator",)},
    )
    with pytest.raises(errors.Unauthenticated) as caught:
        interceptor._admit(f"/{REGISTRY}/SetSellerState", cast("Context", OverOldTls()))
    assert caught.value.reason == "TLS_VERSION"


@pytest.mark.parametrize("told", ["tls_certificate_file", "tls_key_file", "tls_roots_file"])
def test_a_service_is_told_of_all_files_or_none(told: str) -> None:
    with pytest.raises(ValueError, match="set all or none of BOOKMESH_TLS_CERTIFICATE_FILE"):
        ServiceSettings.model_validate({told: "file"})
    assert tls.certificates_of(ServiceSettings()) is None
