"""The local mesh: every part in its order, kept alive until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import NoReturn, Self

import grpc

from deploy.local import edge, postgres, valkey
from deploy.local.certificates import (
    OPERATOR,
    connect,
    ensure_certificates,
    ensure_shown_to_customers,
)
from deploy.local.child import Child, Program
from deploy.local.data import DataFolder
from deploy.local.keys import AUDIENCE, ISSUER, ensure_keys, sign_token
from deploy.local.options import MeshOptions
from deploy.local.past import keep_touching, others_called_lately
from deploy.local.ports import GRPC, HTTP, Ports, demand
from deploy.local.probes import NotReady, http_gives_200
from deploy.local.problem import MeshProblem
from deploy.local.registration import register_sellers
from deploy.local.services import address, service, target
from deploy.schemas import OWNERS_OF_SCHEMAS
from mesh.clock import Clock, SystemClock
from mesh.postgres import MigrationError, migrate
from sellers.admission.admission import rules_of
from sellers.admission.ledger import Ending, Report
from sellers.admission.model import AdmissionSettings
from sellers.admission.valkey import FleetUnavailable, valkey_ledger

_SIM = "seller_sim"
_THROUGH_WITHIN_S = 15.0
_POLL_S = 0.05
_LEDGER_S = 5.0
_TOKEN_TTL = timedelta(hours=24)
_NOTICED_S = 2.0
"""Channels look at least once a second whether a replica is back."""


class LocalMesh:
    """The whole mesh: ``async with LocalMesh(options) as mesh:`` has it ready in the body, and stopped after it.

    Its children end with this process, however that ends; one that dies is started again at the same address. Start it
    in the main thread: on Linux the children would end with any other.

    Attributes:
        rest_url: where the REST API is, ``http://host:port``; with TLS ``https://``, known by the CA in ``data``.
        grpc_address: where the gRPC API is, ``host:port``.
        edge_admin: where Envoy's admin interface is, ``http://host:port``.
        dsn: connection string of the mesh's database.
        valkey_url: where Valkey is, ``redis://host:port/0``.
        sim_control: ``host:port`` of the simulated sellers' control (bookmesh.sellersim.v1).
        replicas: ``host:port`` of each replica by its name (``gateway-1``).
        sellers: how many sellers are registered and active.

    Raises:
        MeshProblem: on entering, if it cannot start; on leaving, if it could not go on.

    """

    def __init__(
        self,
        options: MeshOptions | None = None,
        *,
        report: Callable[[str], None] = lambda _line: None,
        clock: Clock | None = None,
    ) -> None:
        self.options = options or MeshOptions()
        self.data = DataFolder(self.options.data)
        self.rest_url = ""
        self.grpc_address = ""
        self.edge_admin = ""
        self.dsn = ""
        self.valkey_url = ""
        self.sim_control = ""
        self.replicas: dict[str, str] = {}
        self.sellers = 0
        self._postgres_port = 0
        self._report = report
        self._clock = clock or SystemClock()
        self._children: dict[str, Child] = {}
        self._tiers: list[list[Program]] = []
        self._keepers: set[asyncio.Task[None]] = set()
        self._leaving: list[Child] = []
        self._problems: asyncio.Queue[MeshProblem] = asyncio.Queue()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except MeshProblem:
                # The problem is what there is to say now.
                self._report = lambda _line: None
                raise
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)
        if error is None and not self._problems.empty():
            raise self._problems.get_nowait()

    async def broken(self) -> NoReturn:
        """Return never; raise when a part of the mesh cannot be kept alive.

        Raises:
            MeshProblem: which part, and the end of its log.

        """
        raise await self._problems.get()

    def token(
        self, subject: str = "alice", ttl: timedelta = _TOKEN_TTL, scope: str = "customer"
    ) -> str:
        """Give a bearer token with which ``subject``, a customer if not told otherwise, may call this mesh."""
        return sign_token(self.data, subject, self._clock.now(), ttl, scope)

    def connect(self, address: str, server: str, by: str = OPERATOR) -> grpc.aio.Channel:
        """Open a channel to one process of this mesh, past Envoy, with a certificate; the caller closes it.

        ``server`` is the name in the certificate of that process: ``aggregator``, ``gateway``, ``orchestrator`` or
        ``sellersim``; ``by`` is that in ours. Customers' calls may be made at a gateway by ``internal``.
        """
        return connect(self.data, address, server, by=by)

    def pids(self) -> dict[str, int]:
        """Give the process ids of the children that run, by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def rolling_restart(self) -> None:
        """Restart every service and Envoy, one after the other, while the mesh goes on answering customers.

        A replica of a service drains, ends and is started again at its address; the next one has its turn when those
        who call it have noticed that it is back. Envoy hands its sockets over to a successor; calls and streams under
        way have 25 s to end. Databases and simulated sellers are not ours to restart. Returns when all is done.

        Raises:
            MeshProblem: if a successor of Envoy cannot start; the old one goes on then.

        """
        _stores, _sellers, *services, _edge = self._tiers
        for program in (program for tier in services for program in tier):
            self.kill(program.name, signal.SIGTERM)
            await self.wait_healthy(program.name)
            await self._clock.sleep(_NOTICED_S)
            await edge.wait_whole(self.edge_admin, self._clock)
        await self._replace_edge()

    async def _replace_edge(self) -> None:
        old = self._children[edge.NAME]
        program = await edge.successor(old.program, self.edge_admin)
        child = Child(program, self._clock, self._report)
        self._leaving.append(old)
        old.release()
        await child.start()
        self._children[edge.NAME] = child
        self._keep(asyncio.create_task(self._keep_alive(child)))
        self._report(f"{program.name} has a successor, and ends when what it has begun is done")
        await old.wait_ended()
        self._leaving.remove(old)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a child a signal; one that ends by it is started again."""
        self._children[name].signal(number)

    def kill_family(self, name: str) -> None:
        """Kill a child and all that it has started, as when a machine's memory is full; it is started again."""
        self._children[name].kill_family()

    def kill_all(self) -> None:
        """Kill all children at once, for a supervisor that is about to exit without waiting for them."""
        for child in self._children.values():
            # PostgreSQL's own processes end with it, but only SIGQUIT lets it clean up after itself.
            hard = child.program.name == postgres.NAME
            child.signal(signal.SIGQUIT if hard else signal.SIGKILL)

    def up(self) -> frozenset[str]:
        """Give the names of the children that run and were healthy when they were last asked."""
        return frozenset(name for name, child in self._children.items() if child.up)

    async def wait_healthy(self, *names: str) -> None:
        """Return when these children, or all, are up and healthy."""
        for name in names or tuple(self._children):
            await self._children[name].wait_healthy()

    async def _start(self, stack: AsyncExitStack) -> None:
        options = self.options
        try:
            self.data.prepare()
            stack.enter_context(self.data.locked())
            self.data.turn_logs()
            ensure_keys(self.data)
            ensure_certificates(self.data, self._clock.now())
            ensure_shown_to_customers(self.data, self._clock.now(), tls=options.tls)
        except OSError as error:
            msg = f"cannot keep data in {self.data.root} ({error}): choose another folder, such as make up DATA=.local2"
            raise MeshProblem(msg) from None
        ports = stack.enter_context(Ports(self.data.ports))
        http_port, grpc_port = (
            ports.chosen(name, chosen) if chosen else ports.take(name)
            for name, chosen in ((HTTP, options.http_port), (GRPC, options.grpc_port))
        )
        await demand(http_port, "HTTP_PORT", "the REST API", self._clock)
        await demand(grpc_port, "GRPC_PORT", "the gRPC API", self._clock)
        self._tiers = self._plan(ports, http_port, grpc_port)
        ports.remember()
        stack.push_async_callback(self._stop)
        await self._start_in_order()

    def _plan(self, ports: Ports, http_port: int, grpc_port: int) -> list[list[Program]]:
        """Say what to run, in tiers: each needs those before it, and is stopped before them."""
        data, options = self.data, self.options
        environment = options.environment
        postgres_port, valkey_port = ports.take(postgres.NAME), ports.take(valkey.NAME)
        sim_port = ports.take(_SIM)
        self.rest_url = f"{'https' if options.tls else 'http'}://{address(http_port)}"
        self.grpc_address = address(grpc_port)
        self._postgres_port = postgres_port
        self.dsn = postgres.dsn(postgres_port)
        self.valkey_url = f"redis://{address(valkey_port)}/0"
        self.sim_control = address(sim_port)

        callers = count()

        def replicas(
            kind: str, settings: Mapping[str, str], *, calls_sellers: bool = True
        ) -> tuple[list[Program], list[int]]:
            names = [f"{kind}-{number}" for number in range(1, options.replicas + 1)]
            listens = [ports.take(name) for name in names]
            self.replicas |= {
                name: address(port) for name, port in zip(names, listens, strict=True)
            }
            programs = [
                service(
                    name,
                    kind,
                    data,
                    port=port,
                    admin_port=ports.take(f"{name}-admin"),
                    environment=environment,
                    settings=(
                        {**settings, "PROCESS_INDEX": str(next(callers))}
                        if calls_sellers
                        else settings
                    ),
                    # The simulated sellers start with the mesh: nobody has called them. For others see
                    # ``_begin_valkey``.
                    first_settings={"QUIET_START": "true"} if calls_sellers else {},
                )
                for name, port in zip(names, listens, strict=True)
            ]
            return programs, listens

        seller_caller = {
            "DATABASE_URL": self.dsn,
            "VALKEY_URL": self.valkey_url,
            "SELLER_CREDENTIALS_FILE": str(data.seller_credentials),
            "PROCESSES": str(2 * options.replicas),
        }
        verifies_tokens = {
            "JWKS_FILE": str(data.jwks),
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
        }
        aggregators, aggregator_ports = replicas("aggregator", seller_caller)
        orchestrators, orchestrator_ports = replicas(
            "orchestrator",
            {
                **seller_caller,
                **verifies_tokens,
                "AGGREGATOR_TARGET": target(aggregator_ports),
                "TOKEN_KEYRING_FILE": str(data.token_keyring),
                # Who tries webhooks out has the receiver on this machine too.
                "WEBHOOK_LOOPBACK": "true",
            },
        )
        gateways, gateway_ports = replicas(
            "gateway",
            {
                **verifies_tokens,
                "ORCHESTRATOR_TARGET": target(orchestrator_ports),
                "AGGREGATOR_TARGET": target(aggregator_ports),
                # A watch that has begun sees the end of its purchase; Envoy hears of the end of a gateway in half a
                # second.
                "DRAIN_S": "25",
                "DRAIN_PAUSE_S": "1",
            },
            calls_sellers=False,
        )
        sim = service(
            _SIM,
            _SIM,
            data,
            port=sim_port,
            admin_port=ports.take(f"{_SIM}-admin"),
            environment=environment,
            settings={
                "DATA_DIR": str(data.sellers),
                "SELLERS": str(options.sellers),
                **({"SCENARIO_FILE": str(options.scenario.absolute())} if options.scenario else {}),
            },
        )
        edge_port = ports.take("envoy-admin")
        self.edge_admin = f"http://{address(edge_port)}"
        edge_settings = edge.settings(
            data,
            environment,
            http_port=http_port,
            grpc_port=grpc_port,
            admin_port=edge_port,
            jwks_port=ports.take("envoy-jwks"),
            gateways=[address(port) for port in gateway_ports],
            tls=options.tls,
        )
        return [
            [
                postgres.program(data, postgres_port, environment, self._clock),
                valkey.program(data, valkey_port, environment),
            ],
            [replace(sim, after_return=self._register_later)],
            aggregators,
            orchestrators,
            gateways,
            [edge.program(data, edge_settings, environment, self._clock)],
        ]

    async def _start_in_order(self) -> None:
        """Start every part as soon as what it cannot start without is there.

        Raises:
            MeshProblem: the first that came up.

        """
        [database, cache], [sim], aggregators, orchestrators, gateways, [envoy] = self._tiers
        try:
            async with asyncio.TaskGroup() as group:

                def begin(part: Program, *needs: asyncio.Task[None]) -> asyncio.Task[None]:
                    return group.create_task(self._begin(part, needs))

                ready = group.create_task(self._begin_database(database))
                stores = [ready, group.create_task(self._begin_valkey(cache, ready))]
                sellers = begin(sim)
                asking = [begin(part, *stores) for part in aggregators]
                for part in orchestrators:
                    begin(part, *stores)
                group.create_task(self._register_after([sellers, *asking]))
                begin(envoy, *[begin(part) for part in gateways])
        except BaseExceptionGroup as several:
            problems = several.subgroup(MeshProblem)
            if problems is None:
                raise
            first = problems.exceptions[0]
            raise first from None
        await self._wait_through()

    async def _begin(self, program: Program, needs: Sequence[asyncio.Task[None]] = ()) -> None:
        for need in needs:
            await need
        child = Child(program, self._clock, self._report)
        self._children[program.name] = child
        await child.start()
        self._report(f"{program.name:<15} {program.address}")
        self._keep(asyncio.create_task(self._keep_alive(child)))

    async def _begin_database(self, program: Program) -> None:
        await postgres.initialise(self.data, self.options.environment)
        await self._begin(program)
        await postgres.ensure_database(self._postgres_port)
        try:
            applied = await migrate(self.dsn, OWNERS_OF_SCHEMAS)
        except MigrationError as error:
            raise MeshProblem(str(error)) from None
        self._report(f"{'migrations':<15} {len(applied)} applied")

    async def _begin_valkey(self, program: Program, database: asyncio.Task[None]) -> None:
        await self._begin(program)
        await database
        rules = AdmissionSettings()
        others = await others_called_lately(self.data, self.dsn, self._clock, rules.warm_up_s)
        self._keep(asyncio.create_task(keep_touching(self.data, self._clock)))
        alone_ms = round(rules.warm_up_s * 1000)
        leave_alone = [Report(name, 0, 0, 0, Ending.LEAVE_ALONE, alone_ms) for name in others]
        if others:
            self._report(
                f"{'sellers':<15} {len(others)} of your own may have been called a moment ago: they are left alone for"
                f" {rules.warm_up_s:.0f} s"
            )
        async with valkey_ledger(self.valkey_url, rules_of(rules), timeout_s=_LEDGER_S) as ledger:
            try:
                await ledger.declare_quiet()
                await ledger.report(leave_alone)
            except FleetUnavailable as error:
                msg = (
                    f"{valkey.NAME} at {program.address} runs, but does not take the first word to it ({error}): "
                    f"look into {program.log}"
                )
                raise MeshProblem(msg) from None

    async def _register_after(self, needs: Sequence[asyncio.Task[None]]) -> None:
        for need in needs:
            await need
        await self._register()
        self._report(f"{'sellers':<15} {self.sellers} registered")

    async def _register(self) -> None:
        aggregators = [self.replicas[name] for name in self._aggregators()]
        self.sellers = await register_sellers(
            self.data, self.sim_control, aggregators, self._report
        )

    def _aggregators(self) -> list[str]:
        return [name for name in self.replicas if name.startswith("aggregator")]

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)

    async def _register_later(self) -> None:
        """See to it that the sellers are registered again, as they may have other addresses now."""
        self._keep(asyncio.create_task(self._register_until_done()))

    async def _register_until_done(self) -> None:
        while True:
            await self.wait_healthy(_SIM, *self._aggregators())
            try:
                await self._register()
            except MeshProblem as problem:
                self._report(f"{problem}: trying again")
                await self._clock.sleep(1.0)
            else:
                return

    async def _wait_through(self) -> None:
        """Return when a customer's call goes all the way.

        Raises:
            MeshProblem: if none does in time.

        """
        give_up_at = self._clock.monotonic() + _THROUGH_WITHIN_S
        headers = {"authorization": f"Bearer {self.token()}"}
        while True:
            try:
                await http_gives_200(
                    f"{self.rest_url}/api/v1/purchase-requests", headers, self.data.authority
                )
            except NotReady as not_ready:
                if self._clock.monotonic() > give_up_at:
                    msg = f"everything runs, but no call of a customer goes through: {not_ready}"
                    raise MeshProblem(msg) from None
            else:
                return
            await self._clock.sleep(_POLL_S)

    async def _keep_alive(self, child: Child) -> None:
        try:
            await child.keep_alive()
        except MeshProblem as problem:
            self._problems.put_nowait(problem)

    async def _stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for tier in reversed(self._tiers):
            running = [
                child
                for program in tier
                if (child := self._children.get(program.name)) and child.pid is not None
            ]
            if running:
                self._report(f"stopping {', '.join(child.program.name for child in running)}")
                await asyncio.gather(*(child.stop() for child in running))
        # After its successor, which speaks to it to the end.
        await asyncio.gather(*(child.stop() for child in self._leaving))
        self.data.last_run.touch()
