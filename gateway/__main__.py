"""Starts the gateway: ``python -m gateway``."""

from __future__ import annotations

import asyncio
from functools import partial
from random import SystemRandom

import grpc

from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceStub
from bookmesh.customer.v1 import customer_pb2
from bookmesh.customer.v1.customer_pb2_grpc import (
    add_NotificationServiceServicer_to_server,
    add_PaymentEventServiceServicer_to_server,
    add_PurchaseServiceServicer_to_server,
    add_QuoteServiceServicer_to_server,
)
from bookmesh.orchestrator.v1.notifications_pb2_grpc import NotificationServiceStub
from bookmesh.orchestrator.v1.orchestrator_pb2_grpc import (
    PaymentEventServiceStub,
    PurchaseServiceStub,
)
from gateway.adapters import notifications, orchestrator, payment_events, quotes
from gateway.adapters.notifications import GrpcNotificationCenter
from gateway.adapters.orchestrator import GrpcOrchestrator
from gateway.adapters.payment_events import GrpcPaymentEvents
from gateway.adapters.quotes import GrpcQuotes
from gateway.callers import Callers
from gateway.limits import Limits
from gateway.notification_servicer import NotificationServicer
from gateway.payment_event_servicer import PaymentEventServicer
from gateway.quote_servicer import QuoteServicer
from gateway.servicer import PurchaseServicer
from gateway.settings import Settings
from mesh import telemetry
from mesh.clock import SystemClock
from mesh.grpc.channel import open_channel
from mesh.grpc.server import Served, Serving, serve
from mesh.grpc.tls import certificates_of
from mesh.ids import uuid7_factory
from mesh.settings import load
from mesh.tokens.identities import JwtIdentities
from mesh.tokens.keys import open_keys

SERVICE = customer_pb2.DESCRIPTOR.services_by_name["PurchaseService"].full_name
PAYMENT_EVENTS = customer_pb2.DESCRIPTOR.services_by_name["PaymentEventService"].full_name
QUOTES = customer_pb2.DESCRIPTOR.services_by_name["QuoteService"].full_name
NOTIFICATIONS = customer_pb2.DESCRIPTOR.services_by_name["NotificationService"].full_name
CALLERS = ("envoy", "internal")
"""The edge, and services of the house that act for customers; the token decides for whom they may."""


async def run(settings: Settings) -> None:
    """Wire it up and answer until told to stop."""
    clock = SystemClock()
    certificates = certificates_of(settings)
    channel = open_channel(
        settings.orchestrator_target,
        orchestrator.SERVICE,
        certificates=certificates,
        retried=orchestrator.RETRIED,
    )
    notification_channel = open_channel(
        settings.orchestrator_target,
        notifications.SERVICE,
        certificates=certificates,
        retried=notifications.RETRIED,
    )
    event_channel = open_channel(
        settings.orchestrator_target,
        payment_events.SERVICE,
        certificates=certificates,
        retried=payment_events.RETRIED,
    )
    quote_channel = open_channel(
        settings.aggregator_target,
        quotes.SERVICE,
        certificates=certificates,
        routed_by=quotes.BOOK_ID_HEADER,
    )
    async with (
        channel,
        notification_channel,
        event_channel,
        quote_channel,
        open_keys(settings, clock) as keys,
    ):
        identities = JwtIdentities(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
        limits = Limits(
            calls=settings.customer_calls,
            streams=settings.customer_streams,
            all_streams=settings.streams,
        )
        callers = Callers(identities, limits)
        servicer = PurchaseServicer(
            callers,
            GrpcOrchestrator(PurchaseServiceStub(channel), clock),
            uuid7_factory(clock, SystemRandom()),
            default_currency=settings.default_currency,
        )

        notification_servicer = NotificationServicer(
            callers, GrpcNotificationCenter(NotificationServiceStub(notification_channel))
        )

        quote_servicer = QuoteServicer(
            callers,
            GrpcQuotes(QuoteServiceStub(quote_channel)),
            default_currency=settings.default_currency,
        )

        event_servicer = PaymentEventServicer(
            GrpcPaymentEvents(PaymentEventServiceStub(event_channel))
        )

        async def ready() -> bool:
            # The channel is ready while the health service of one orchestrator at least says SERVING.
            state = channel.get_state(try_to_connect=True)
            return state is grpc.ChannelConnectivity.READY and identities.loaded()

        serving = Serving(
            services=[
                Served(
                    SERVICE,
                    partial(add_PurchaseServiceServicer_to_server, servicer),
                    callers=CALLERS,
                ),
                Served(
                    QUOTES,
                    partial(add_QuoteServiceServicer_to_server, quote_servicer),
                    callers=CALLERS,
                ),
                Served(
                    NOTIFICATIONS,
                    partial(add_NotificationServiceServicer_to_server, notification_servicer),
                    callers=CALLERS,
                ),
                Served(
                    PAYMENT_EVENTS,
                    partial(add_PaymentEventServiceServicer_to_server, event_servicer),
                    callers=CALLERS,
                ),
            ],
            ready=ready,
            unbounded=[
                f"/{SERVICE}/WatchPurchaseRequest",
                f"/{SERVICE}/WatchPurchaseRequestEvents",
            ],
            # A comparison of prices may wait for 10 s.
            default_timeout_s=12.0,
            # Customers would notice; a purchase is over soon anyway.
            hand_over=False,
            # The edge takes headers of 16 KiB in all, and adds some.
            options=[("grpc.max_metadata_size", 32 * 1024)],
        )
        await serve(serving, settings, clock)


def main() -> None:
    """Read the settings and run."""
    settings = load(Settings)
    provider = telemetry.set_up("gateway", settings.listen, settings.log_level)
    try:
        asyncio.run(run(settings))
    finally:
        provider.shutdown()


if __name__ == "__main__":
    main()
