"""Starts the simulated sellers and their control: ``python -m seller_sim``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from opentelemetry.instrumentation.grpc import aio_server_interceptor
from protovalidate import Validator

from bookmesh.seller.v1 import seller_pb2_grpc
from bookmesh.sellersim.v1 import control_pb2, control_pb2_grpc
from mesh import telemetry
from mesh.clock import SystemClock
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.grpc.server import OUR_PACKAGES, Served, Serving, serve
from mesh.settings import load
from seller_sim.adapters.files import DataFolderError, credentials, make_folder
from seller_sim.adapters.listeners import GrpcListeners, addresses_for
from seller_sim.adapters.scenario import ScenarioError, load_scenario
from seller_sim.adapters.sqlite import SqliteLedger
from seller_sim.app import Simulation
from seller_sim.domain.behaviour import BehaviourError
from seller_sim.domain.seller import Seller
from seller_sim.servicer.control import ControlServicer
from seller_sim.servicer.gate import SellerGate
from seller_sim.servicer.seller import SellerServicer
from seller_sim.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mesh.clock import Clock

CONTROL = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name
_LONGEST_CALL_S = 60.0


@asynccontextmanager
async def simulating(settings: Settings, clock: Clock) -> AsyncIterator[Simulation]:
    """Run all sellers of a scenario, answering at their addresses, until the block ends.

    Raises:
        ScenarioError: if the scenario cannot be used.
        DataFolderError: if the data folder cannot be used.

    """
    scenario = load_scenario(settings.scenario_file)
    try:
        specs = scenario.sellers(settings.sellers)
    except BehaviourError as error:
        raise ScenarioError(f"{settings.scenario_file}: {error}") from None
    seller_ids = [spec.seller_id for spec in specs]
    make_folder(settings.data_dir)
    ledger = SqliteLedger(settings.data_dir)
    secrets = credentials(settings.data_dir, seller_ids)
    records = ledger.read_all()
    validator = Validator()

    def make_server(served_ids: Sequence[str]) -> grpc.aio.Server:
        interceptors: list[grpc.aio.ServerInterceptor] = [
            SellerGate(simulation, [simulation.sellers[name] for name in served_ids]),
            ServiceInterceptor(
                validator, default_timeout_s=_LONGEST_CALL_S, unbounded=(), only=OUR_PACKAGES
            ),
        ]
        if telemetry.exporting():
            interceptors.insert(0, aio_server_interceptor())
        server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
        seller_pb2_grpc.add_SellerServiceServicer_to_server(servicer, server)
        return server

    addresses = addresses_for(seller_ids, settings.sellers_per_address)
    listeners = GrpcListeners(settings.data_dir, addresses, make_server)
    simulation = Simulation(
        [
            Seller(
                seed=scenario.seed,
                seller_id=spec.seller_id,
                display_name=spec.display_name,
                credential=secrets[spec.seller_id],
                behaviour=spec.behaviour,
                books=scenario.books,
                records=records.get(spec.seller_id, ()),
            )
            for spec in specs
        ],
        ledger,
        listeners,
        clock,
    )
    servicer = SellerServicer(simulation)
    await simulation.start()
    try:
        yield simulation
    finally:
        await simulation.close()
        await listeners.close(settings.seller_drain_s)
        ledger.close()


async def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = load(Settings)
    clock = SystemClock()
    provider = telemetry.set_up("seller_sim", settings.listen, settings.log_level)
    try:
        async with simulating(settings, clock) as simulation:
            control = ControlServicer(simulation)

            async def ready() -> bool:
                return True

            def add(server: grpc.aio.Server) -> None:
                control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)

            await serve(
                Serving([Served(CONTROL, add, callers=("operator",))], ready), settings, clock
            )
    except (ScenarioError, DataFolderError) as error:
        print(error, file=sys.stderr)  # noqa: T201  one line for people
        raise SystemExit(2) from None
    finally:
        provider.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
