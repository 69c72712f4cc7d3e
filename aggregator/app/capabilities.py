"""Asks sellers from time to time what they can do, and takes what has changed into the registry."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Protocol

import structlog

from aggregator.app.registry import Registry
from aggregator.ports import CallAdmission, CapabilityChecks
from mesh.clock import Clock
from mesh.errors import InvalidArgument, Unavailable
from sellers.admission.model import Allowed, Ask, Limits, Outcome, Purpose
from sellers.admission.outcomes import outcome_of
from sellers.model import CallFailed, CapabilitiesOutcome, Seller
from sellers.registry import Directory

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CapabilitySettings:
    """How often sellers are asked; times in seconds."""

    every_s: float = 3600.0
    """How old what we know may become."""
    look_every_s: float = 10.0
    """How often to look for sellers whose turn it is."""
    at_once: int = 10
    """How many are asked at the same time, at most."""
    least_a_look: int = 100
    """How many are asked in one look at the least, if it is their turn; see ``most_a_look``."""
    timeout_s: float = 3.0
    """How long each has to answer."""
    retry_s: float = 30.0
    """When one that did not answer is asked again; twice as long after each further time, and up to half of that more,
    so that those that failed together do not come together."""
    longest_retry_s: float = 1800.0
    """The longest such time, before what comes on top of it."""

    def most_a_look(self, sellers: int) -> int:
        """Say how many of so many sellers are asked in one look at the most: all of them in a quarter of the time.

        So thousands that are new, or whose turn it is after a night's rest, are asked one look after the other, and
        their next turns are as far apart.
        """
        a_quarter = sellers * self.look_every_s / (self.every_s / 4)
        return max(self.least_a_look, math.ceil(a_quarter))


class CapabilitySource(Protocol):
    """Asks a seller what it can do."""

    async def get_capabilities(self, seller: Seller, *, timeout_s: float) -> CapabilitiesOutcome:
        """Ask; whatever the seller or the network does is a value."""
        ...


class CapabilityKeeper:
    """Keeps the capabilities in the registry true. In the whole fleet a seller is asked once in ``every_s``."""

    def __init__(
        self,
        checks: CapabilityChecks,
        source: CapabilitySource,
        admission: CallAdmission,
        registry: Registry,
        directory: Directory,
        *,
        settings: CapabilitySettings,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._checks = checks
        self._source = source
        self._admission = admission
        self._registry = registry
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._failures: Counter[str] = Counter()
        self._suspects: set[str] = set()
        self._suspect_again_at: dict[str, float] = {}

    def suspect(self, seller_id: str) -> None:
        """Have a seller asked at the next look: it does not allow what it has said. Returns at once.

        A seller that goes on like that is not asked more often than one that does not answer.
        """
        now = self._clock.monotonic()
        if now >= self._suspect_again_at.get(seller_id, now):
            self._suspect_again_at[seller_id] = now + self._settings.longest_retry_s
            self._suspects.add(seller_id)

    async def run(self) -> None:
        """Look for sellers whose turn it is, until cancelled."""
        while True:
            await self._clock.sleep(self._settings.look_every_s)
            try:
                await self.check()
            except Unavailable as error:
                _log.warning("capabilities are not checked for now", detail=error.message)
            except Exception:  # noqa: BLE001  the aggregator does its work without what this finds out
                _log.exception("checking capabilities failed in our own code")

    async def check(self) -> None:
        """Ask those whose turn it is, some at a time.

        Raises:
            Unavailable: while the registry cannot be reached.

        """
        for seller_id in list(self._suspects):
            await self._checks.retry(seller_id, self._settings.every_s, 0.0)
            self._suspects.discard(seller_id)
        known = self._directory.snapshot
        left = self._settings.most_a_look(len(known.sellers)) if known is not None else 0
        while left > 0:
            wanted = min(left, self._settings.at_once)
            claimed = await self._checks.claim(self._settings.every_s, wanted)
            if claimed:
                # One that is new may not have come to this replica yet.
                with suppress(Unavailable):
                    await self._registry.refresh()
            snapshot = self._directory.snapshot
            assert snapshot is not None  # noqa: S101  for the type checker: what was read once is there
            async with asyncio.TaskGroup() as tasks:
                for seller_id in claimed:
                    if seller_id in snapshot.sellers:
                        tasks.create_task(self._check(snapshot.sellers[seller_id]))
            left = left - wanted if len(claimed) == wanted else 0

    async def _check(self, seller: Seller) -> None:
        """Bring one seller up to date, or have its turn come again soon."""
        try:
            done = await self._update(seller)
        except Unavailable:
            done = False
        except Exception:  # noqa: BLE001  a fault with one seller must not keep the others from being asked
            _log.exception(
                "checking capabilities failed in our own code", seller_id=seller.seller_id
            )
            done = False
        if done:
            del self._failures[seller.seller_id]
            return
        settings = self._settings
        pause_s = min(
            settings.retry_s * 2 ** self._failures[seller.seller_id], settings.longest_retry_s
        )
        self._failures[seller.seller_id] += 1
        pause_s *= self._rng.uniform(1.0, 1.5)
        _log.info(
            "a seller has not said what it can do",
            seller_id=seller.seller_id,
            retry_after_s=round(pause_s),
        )
        try:
            await self._checks.retry(seller.seller_id, settings.every_s, pause_s)
        except Unavailable as error:
            _log.warning(
                "this seller is not asked again before its usual turn",
                seller_id=seller.seller_id,
                detail=error.message,
            )

    async def _update(self, seller: Seller) -> bool:
        """Ask a seller and take over what has changed; False if it was not asked or did not answer."""
        found = await self._ask(seller)
        if found is None or isinstance(found, CallFailed):
            return False
        if found == seller.capabilities:
            return True
        try:
            await self._registry.set_capabilities(seller, found)
        except InvalidArgument as error:
            _log.error("a seller can do less than it must: not taken over", detail=error.message)
        else:
            _log.info("a seller can do something else now", seller_id=seller.seller_id)
        return True

    async def _ask(self, seller: Seller) -> CapabilitiesOutcome | None:
        """Ask one seller, if admission lets the call pass now; None if not."""
        ask = Ask(Limits.of(seller), timeout_s=self._settings.timeout_s)
        [decision] = await self._admission.admit([ask], Purpose.QUOTE)
        if not isinstance(decision, Allowed):
            return None
        try:
            outcome = await self._source.get_capabilities(
                seller, timeout_s=self._settings.timeout_s
            )
        except BaseException:
            self._admission.report(decision.grant, Outcome.OURS)
            raise
        self._admission.report(decision.grant, outcome_of(outcome))
        return outcome
