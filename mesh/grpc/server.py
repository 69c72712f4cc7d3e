"""Starts, watches over and stops the gRPC server of a service."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor
from protovalidate import Validator

from mesh.grpc import tls
from mesh.grpc.interceptor import ServiceInterceptor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from mesh.clock import Clock
    from mesh.grpc.tls import Certificates
    from mesh.settings import ServiceSettings

OUR_PACKAGES = "bookmesh."
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_HEALTH = f"/{health.SERVICE_NAME}/"
_CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name
_READY_INTERVAL_S = 0.5
_LAST_WORD_S = 1.0
_START_INTERVAL_S = 0.05
_READY_TIMEOUT_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A gRPC service to answer, and for whom.

    Attributes:
        name: its full name.
        add: adds its servicer to a server.
        callers: names of the services that may call it, as they stand in certificates (``mesh.grpc.tls``); without TLS
            everybody may, with it those alone.
        exceptions: methods that others than those may call: their names, and whose.

    """

    name: str
    add: Callable[[grpc.aio.Server], None]
    callers: Collection[str] = ()
    exceptions: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Serving:
    """How a service answers.

    Attributes:
        services: what is answered on the main port.
        ready: says whether the service's dependencies answer; asked twice a second. An exception means no.
        on_drain: called once when the service is told to stop, before it stops answering: stop taking new work here.
        unbounded: methods (full names) that may go on without a deadline.
        hand_over: whether calls of those methods end at once when the service is told to stop, because their callers
            open them anew elsewhere; else they have the time that all calls have, less a second.
        default_timeout_s: the deadline of calls that come without one.
        options: further gRPC server options.

    """

    services: Sequence[Served]
    ready: Callable[[], Awaitable[bool]]
    on_drain: Callable[[], Awaitable[None]] | None = None
    unbounded: Collection[str] = ()
    hand_over: bool = True
    default_timeout_s: float = 10.0
    options: Sequence[tuple[str, Any]] = field(default_factory=tuple)


async def serve(serving: Serving, settings: ServiceSettings, clock: Clock) -> None:
    """Answer calls until SIGTERM or SIGINT, then drain.

    Health (``grpc.health.v1``) is on both ports, for ``""`` and for each service by name: NOT_SERVING until ``ready``
    says yes, and again whenever it says no. Draining: NOT_SERVING at once, ``on_drain``, a pause until callers have
    noticed, then no new calls, and up to ``drain_s`` seconds for those under way. A second signal exits at once.

    With certificates in the settings, the main port takes TLS 1.3 only, from those who have a certificate of our CA:
    health from all of them, everything else from those whom ``Served`` names. The admin port has no TLS: it is not for
    the outside, and probes of many kinds must be able to ask for health.

    Raises:
        SystemExit: with status 1, when an address cannot be bound or the certificates cannot be used.

    """
    certificates = tls.certificates_of(settings)
    stop = _stop_on_signals()
    health_servicer = health.aio.HealthServicer()
    names = [health.OVERALL_HEALTH, *(service.name for service in serving.services)]
    for name in names:
        await health_servicer.set(name, _NOT_SERVING)

    interceptor = ServiceInterceptor(
        Validator(),
        default_timeout_s=serving.default_timeout_s,
        unbounded=serving.unbounded,
        only=OUR_PACKAGES,
        callers=_callers(serving.services) if certificates is not None else None,
    )
    server = grpc.aio.server(
        interceptors=[
            aio_server_interceptor(filter_=_is_no_probe),
            interceptor,
        ],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            *serving.options,
        ],
    )
    for service in serving.services:
        service.add(server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)

    admin = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, admin)
    channelz.add_channelz_servicer(admin)
    reflection.enable_server_reflection(
        [*names[1:], health.SERVICE_NAME, reflection.SERVICE_NAME, _CHANNELZ], admin
    )

    # Modules and what is wired stay to the end, some 100,000 objects. The garbage collector need not look through them
    # again and again: that takes more than 20 ms each time, in which nothing is answered.
    gc.collect()
    gc.freeze()

    port = bind(server, settings.listen, certificates)
    admin_port = bind(admin, settings.admin_listen)
    await admin.start()
    await server.start()
    _log.info("listening", port=port, admin_port=admin_port, tls=certificates is not None)

    watcher = asyncio.create_task(_watch_readiness(serving.ready, health_servicer, names, clock))
    try:
        await stop.wait()
        _log.info("draining", drain_s=settings.drain_s)
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await health_servicer.enter_graceful_shutdown()
        if serving.on_drain is not None:
            await serving.on_drain()
        await clock.sleep(settings.drain_pause_s)
        if serving.hand_over:
            interceptor.end_unbounded()
        # What is still open shortly before the end is told to go elsewhere, which is better than being cut off.
        last_word = asyncio.get_running_loop().call_later(
            max(0.0, settings.drain_s - _LAST_WORD_S), interceptor.end_unbounded
        )
        await server.stop(settings.drain_s)
        last_word.cancel()
        await admin.stop(None)
        _log.info("stopped")


def bind(server: grpc.aio.Server, address: str, certificates: Certificates | None = None) -> int:
    """Bind a server to ``host:port``, without TLS if there are no certificates; give the port.

    Raises:
        SystemExit: with status 1, when the address is taken or is not one of this machine.

    """
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.server_credentials(certificates))
    except RuntimeError:
        _log.error("cannot listen: the address is taken or not of this machine", address=address)
        raise SystemExit(1) from None


def _is_no_probe(call: grpc.HandlerCallDetails) -> bool:
    """Say whether a call is to be seen in traces; those for health are not."""
    return not call.method.startswith(_HEALTH)


def _callers(services: Sequence[Served]) -> dict[str, Collection[str]]:
    callers: dict[str, Collection[str]] = {}
    for service in services:
        callers[service.name] = service.callers
        for method, names in service.exceptions.items():
            callers[f"/{service.name}/{method}"] = names
    return callers


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


async def _watch_readiness(
    ready: Callable[[], Awaitable[bool]],
    health_servicer: health.aio.HealthServicer,
    names: Sequence[str],
    clock: Clock,
) -> None:
    was_ready = False
    while True:
        is_ready = await _ask(ready)
        if is_ready != was_ready:
            for name in names:
                await health_servicer.set(name, _SERVING if is_ready else _NOT_SERVING)
            _log.info("serving" if is_ready else "not serving: a dependency does not answer")
            was_ready = is_ready
        await clock.sleep(_READY_INTERVAL_S if is_ready else _START_INTERVAL_S)


async def _ask(ready: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            return await ready()
    except Exception as error:  # noqa: BLE001  whatever is wrong with a dependency, the answer is no
        _log.debug("not ready", exc_info=error)
        return False
