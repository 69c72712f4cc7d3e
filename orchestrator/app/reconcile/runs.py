"""When books are compared: as often as is set, and when somebody asks; by one process of the fleet at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import structlog
from opentelemetry import metrics

from mesh.clock import Clock
from mesh.errors import Unavailable
from orchestrator.app.reconcile.compare import Comparer
from orchestrator.app.reconcile.model import (
    Comparison,
    Done,
    Gap,
    Runs,
    Task,
    Verdict,
)
from orchestrator.app.reconcile.settle import Settler
from orchestrator.domain.reconciliation import Kind

_log = structlog.get_logger(__name__)

_POLL_S = 1.0
_MOST_STARTS = 3
"""A run that was begun so often and came to no end is not begun again."""
_MOST_LINES = 100
"""Findings of a run that are logged; all are recorded."""


class Reconciliation:
    """Carries out the runs that are wanted, until it is cancelled.

    A run that is cut off, because its process ends or the database is gone, is begun anew by whoever is next.
    """

    def __init__(
        self,
        runs: Runs,
        comparer: Comparer,
        settler: Settler,
        *,
        name: str,
        every_s: float,
        ready: Callable[[], bool],
        clock: Clock,
        rng: Random,
    ) -> None:
        """Prepare.

        Args:
            runs: the record of runs.
            comparer: compares.
            settler: puts right.
            name: this process's, for the record.
            every_s: seconds between scheduled runs; 0 for none.
            ready: whether this process knows the sellers yet.
            clock: tells the time.
            rng: spreads the looks of the fleet's processes.

        """
        self._runs = runs
        self._comparer = comparer
        self._settler = settler
        self._name = name
        self._every_s = every_s
        self._ready = ready
        self._clock = clock
        self._rng = rng
        meter = metrics.get_meter(__name__)
        self._ended = meter.create_counter(
            "bookmesh.reconciliation.runs", unit="{run}", description="Runs, by how they ended."
        )
        self._took = meter.create_histogram(
            "bookmesh.reconciliation.duration", unit="s", description="How long runs took."
        )
        self._left = meter.create_gauge(
            "bookmesh.reconciliation.findings",
            unit="{finding}",
            description="What did not agree at the end of the last run, by kind.",
        )

    async def run(self) -> None:
        """Look for wanted runs and carry them out, until cancelled."""
        while True:
            await self._clock.sleep(_POLL_S * self._rng.uniform(0.75, 1.25))
            try:
                if self._ready() and await self._runs.wanted(self._every_s):
                    await self.turn()
            except Unavailable as error:
                _log.warning("books are not compared for now", error=error.message)

    async def turn(self) -> None:
        """Carry out all wanted runs, unless another process is at it.

        Raises:
            mesh.errors.Unavailable: when the database does not answer.

        """
        async with self._runs.turn() as mine:
            while mine and (task := await self._runs.begin(self._name, self._every_s)):
                await self._carry_out(task)

    async def _carry_out(self, task: Task) -> None:
        began_s = self._clock.monotonic()
        with structlog.contextvars.bound_contextvars(run_id=str(task.run_id)):
            verdict, found = await self._compare(task)
            if not await self._runs.end(task, verdict, found):
                _log.warning("another process has begun this run again: its end counts")
                return
            took_s = self._clock.monotonic() - began_s
            self._tell(task, verdict, found, took_s)

    async def _compare(self, task: Task) -> tuple[Verdict, Comparison]:
        if task.starts > _MOST_STARTS:
            why = f"it was begun {task.starts - 1} times and came to no end"
            return Verdict.FAILED, Comparison(gaps=[Gap("reconciler", why)])
        try:
            run = await self._comparer.compare(task.period)
            await self._settler.settle(run, task.mode)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours must not stop the runs that follow
            _log.exception("books could not be compared")
            why = f"a fault of ours, see the logs: {type(error).__name__}"
            return Verdict.FAILED, Comparison(gaps=[Gap("reconciler", why)])
        if run.found.gaps:
            return Verdict.PARTIAL, run.found
        return (Verdict.FINDINGS if run.found.left else Verdict.CLEAN), run.found

    def _tell(self, task: Task, verdict: Verdict, found: Comparison, took_s: float) -> None:
        self._ended.add(1, {"outcome": verdict.value})
        self._took.record(took_s)
        left = Counter(o.finding.kind for o in found.outcomes if o.done is not Done.RESOLVED)
        for kind in Kind:
            self._left.set(left[kind], {"kind": kind.value})
        for outcome in found.outcomes[:_MOST_LINES]:
            finding = outcome.finding
            _log.warning(
                "books do not agree",
                kind=finding.kind,
                invariant=finding.invariant,
                request_id=str(finding.request_id) if finding.request_id else None,
                seller_id=finding.seller_id,
                amount=str(finding.amount) if finding.amount else None,
                detail=finding.detail,
                done=outcome.done,
            )
        for gap in found.gaps:
            _log.warning("books could not be compared with", who=gap.who, why=gap.why)
        _log.info(
            "books compared",
            mode=task.mode,
            outcome=verdict,
            purchases=found.purchases,
            payments=found.payments,
            orders=found.orders,
            sellers=found.sellers,
            found=len(found.outcomes),
            left=found.left,
            took_s=round(took_s, 3),
        )
