"""Wires reconciling as a service is told by its settings."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import asyncpg

from mesh.clock import Clock
from orchestrator.adapters.reconciliation import PostgresReconciliation
from orchestrator.adapters.sellers import TransportSellers
from orchestrator.app.reconcile.compare import Comparer
from orchestrator.app.reconcile.model import ReconcileSettings
from orchestrator.app.reconcile.runs import Reconciliation
from orchestrator.app.reconcile.settle import Settler
from orchestrator.ports import Broadcast, PaymentProvider, PurchaseStore
from orchestrator.settings import Settings


def reconciliation(
    settings: Settings,
    pool: asyncpg.Pool[asyncpg.Record],
    store: PurchaseStore,
    *,
    provider: PaymentProvider,
    sellers: TransportSellers,
    broadcast: Broadcast,
    ready: Callable[[], bool],
    clock: Clock,
    rng: Random,
) -> Reconciliation:
    """Give what compares books in this process; its ``run`` must be running."""
    books = PostgresReconciliation(pool, settings.database_url.get_secret_value())
    how = ReconcileSettings()
    comparer = Comparer(books, provider, sellers, settings=how, clock=clock)
    settler = Settler(
        comparer,
        books,
        store,
        provider=provider,
        sellers=sellers,
        broadcast=broadcast,
        settings=how,
        clock=clock,
    )
    return Reconciliation(
        books,
        comparer,
        settler,
        name=settings.listen,
        every_s=settings.reconcile_every_s,
        ready=ready,
        clock=clock,
        rng=rng,
    )
