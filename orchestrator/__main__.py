"""Runs an orchestrator: ``python -m orchestrator``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from random import SystemRandom

from redis.asyncio import Redis

from bookmesh.aggregator.v1 import aggregator_pb2_grpc
from bookmesh.orchestrator.v1 import (
    notifications_pb2,
    notifications_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
)
from mesh import postgres, telemetry
from mesh.clock import SystemClock
from mesh.grpc.channel import open_channel
from mesh.grpc.server import Served, Serving, serve
from mesh.grpc.tls import certificates_of
from mesh.ids import uuid7_factory
from mesh.settings import load
from mesh.tokens.identities import JwtIdentities
from mesh.tokens.keys import open_keys
from orchestrator.adapters.aggregator import BOOK_ID_HEADER, AggregatorQuotes
from orchestrator.adapters.notifications.opening import open_notifications
from orchestrator.adapters.payments import SecretFileError, open_payments
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.adapters.reconciliation.opening import reconciliation
from orchestrator.adapters.records import PostgresPurchaseRecords
from orchestrator.adapters.sales import SaleReports
from orchestrator.adapters.sellers import TransportSellers
from orchestrator.adapters.valkey import ValkeyBroadcast
from orchestrator.adapters.vault import AesTokenVault, KeyringError
from orchestrator.app.operators import Operators
from orchestrator.app.payment_events import PaymentEvents
from orchestrator.app.purchases import Purchases
from orchestrator.app.signals import Signals
from orchestrator.app.steps import Steps
from orchestrator.app.watch import Watch
from orchestrator.app.worker import Worker, WorkerSettings
from orchestrator.domain.saga import Limits, Saga
from orchestrator.notification_servicer import NotificationServicer
from orchestrator.operator_servicer import OperatorServicer
from orchestrator.servicer import PaymentEventServicer, PurchaseServicer
from orchestrator.settings import Settings
from sellers.admission.opening import open_admission
from sellers.connections import ConnectionSettings
from sellers.credentials import Credentials
from sellers.registry import Directory
from sellers.transport import SellerTransport
from sellers.watch import follow_registry

SERVICE = orchestrator_pb2.DESCRIPTOR.services_by_name["PurchaseService"].full_name
OPERATORS = orchestrator_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name
PAYMENT_EVENTS = orchestrator_pb2.DESCRIPTOR.services_by_name["PaymentEventService"].full_name
NOTIFICATIONS = notifications_pb2.DESCRIPTOR.services_by_name["NotificationService"].full_name
QUOTES = "bookmesh.aggregator.v1.QuoteService"
REGISTRY = "bookmesh.aggregator.v1.RegistryService"


async def main(settings: Settings) -> None:
    """Wire the orchestrator together and serve until told to stop."""
    clock, rng, limits, signals = SystemClock(), SystemRandom(), Limits(), Signals()
    certificates = certificates_of(settings)
    dsn = settings.database_url.get_secret_value()
    vault = AesTokenVault(settings.token_keyring_file, clock)
    async with AsyncExitStack() as stack:
        stack.callback(
            telemetry.set_up("orchestrator", settings.listen, settings.log_level).shutdown
        )
        pool = await stack.enter_async_context(
            await postgres.open_pool(
                dsn, max_size=settings.database_connections, application_name="orchestrator"
            )
        )
        valkey = await stack.enter_async_context(
            Redis.from_url(
                settings.valkey_url,
                socket_connect_timeout=0.5,
                socket_timeout=0.5,
                max_connections=200,
            )
        )
        payments = await stack.enter_async_context(
            open_payments(settings, pool, clock, uuid7_factory(clock, rng))
        )
        quotes = await stack.enter_async_context(
            open_channel(
                settings.aggregator_target,
                QUOTES,
                certificates=certificates,
                routed_by=BOOK_ID_HEADER,
            )
        )
        registry = await stack.enter_async_context(
            open_channel(settings.aggregator_target, REGISTRY, certificates=certificates)
        )
        transport = await stack.enter_async_context(
            SellerTransport(
                Credentials(settings.seller_credentials_file, clock),
                clock,
                connections=ConnectionSettings.of(settings),
            )
        )

        directory = Directory()
        admission = await stack.enter_async_context(open_admission(settings, directory, clock))
        quote_service = aggregator_pb2_grpc.QuoteServiceStub(quotes)
        sales = SaleReports(quote_service)
        sellers = TransportSellers(directory, transport, admission, clock, on_sale=sales.tell)
        store = PostgresPurchaseStore(pool, dsn)
        told = await stack.enter_async_context(
            open_notifications(settings, store, vault, clock, rng)
        )
        saga = Saga(limits, sellers.kind_of, reusable_tokens=payments.provider.reusable_tokens)
        broadcast = ValkeyBroadcast(
            valkey,
            clock,
            on_changed=signals.changed,
            on_work=lambda: worker.wake(),  # noqa: PLW0108  made further down
            on_cancel=lambda request_id: worker.cancel(request_id),  # noqa: PLW0108  made further down
        )
        steps = Steps(
            saga,
            quotes=AggregatorQuotes(quote_service, settings.quote_policy),
            sellers=sellers,
            provider=payments.provider,
            vault=vault,
            broadcast=broadcast,
            clock=clock,
            collect_by_s=limits.collect_by_s,
        )
        worker = Worker(
            store,
            broadcast,
            steps,
            saga,
            settings=WorkerSettings(
                concurrency=settings.worker_concurrency,
                lease_s=settings.lease_s,
                poll_s=settings.poll_s,
            ),
            clock=clock,
            rng=rng,
        )
        purchases = Purchases(
            store,
            vault,
            broadcast,
            signals,
            clock=clock,
            wake_worker=worker.wake,
            reusable_tokens=payments.provider.reusable_tokens,
        )
        records = PostgresPurchaseRecords(pool)
        identities = JwtIdentities(
            await stack.enter_async_context(open_keys(settings, clock)),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        )
        operators = OperatorServicer(
            Operators(store, records, broadcast, wake_worker=worker.wake), identities
        )
        payment_events = PaymentEventServicer(
            PaymentEvents(
                store,
                records,
                broadcast,
                verify=payments.verify_event,
                wake_worker=worker.wake,
            )
        )
        servicer = PurchaseServicer(purchases, Watch(purchases, store, broadcast, signals))

        notification_servicer = NotificationServicer(told.notifications)

        async def drain() -> None:
            await asyncio.gather(worker.drain(), told.notifier.drain())

        reconciler = reconciliation(
            settings,
            pool,
            store,
            provider=payments.provider,
            sellers=sellers,
            broadcast=broadcast,
            ready=lambda: directory.snapshot is not None,
            clock=clock,
            rng=rng,
        )

        async def ready() -> bool:
            return directory.snapshot is not None and await store.ping()

        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(
                    follow_registry(
                        aggregator_pb2_grpc.RegistryServiceStub(registry),
                        directory,
                        clock,
                        on_change=lambda snapshot: transport.retain(snapshot.sellers.values()),
                    )
                ),
                tasks.create_task(admission.run()),
                tasks.create_task(broadcast.run()),
                tasks.create_task(worker.run(when=lambda: directory.snapshot is not None)),
                tasks.create_task(reconciler.run()),
                tasks.create_task(told.notifier.run()),
                tasks.create_task(sales.run()),
            ]
            await serve(
                Serving(
                    services=[
                        Served(
                            SERVICE,
                            lambda server: (
                                orchestrator_pb2_grpc.add_PurchaseServiceServicer_to_server(
                                    servicer, server
                                )
                            ),
                            callers=("gateway",),
                        ),
                        Served(
                            OPERATORS,
                            lambda server: (
                                orchestrator_pb2_grpc.add_OperatorServiceServicer_to_server(
                                    operators, server
                                )
                            ),
                            callers=("operator",),
                        ),
                        Served(
                            PAYMENT_EVENTS,
                            lambda server: (
                                orchestrator_pb2_grpc.add_PaymentEventServiceServicer_to_server(
                                    payment_events, server
                                )
                            ),
                            callers=("gateway",),
                        ),
                        Served(
                            NOTIFICATIONS,
                            lambda server: (
                                notifications_pb2_grpc.add_NotificationServiceServicer_to_server(
                                    notification_servicer, server
                                )
                            ),
                            callers=("gateway",),
                        ),
                    ],
                    ready=ready,
                    on_drain=drain,
                    unbounded=[f"/{SERVICE}/WatchPurchase"],
                ),
                settings,
                clock,
            )
            for helper in helpers:
                helper.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(main(load(Settings)))
    except (KeyringError, SecretFileError) as error:
        sys.exit(str(error))
