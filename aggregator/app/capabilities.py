"""Asks sellers from time to time what they can do, and takes what has changed into the registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    look_every_s: float = 30.0
    """How often to look for sellers whose turn it is."""
    at_once: int = 20
    """How many are asked each time, at most."""
    timeout_s: float = 3.0
    """How long each has to answer."""


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
    ) -> None:
        self._checks = checks
        self._source = source
        self._admission = admission
        self._registry = registry
        self._directory = directory
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """Look for sellers whose turn it is, until cancelled."""
        while True:
            await self._clock.sleep(self._settings.look_every_s)
            try:
                await self.check()
            except Unavailable as error:
                _log.warning("capabilities are not checked for now", detail=error.message)

    async def check(self) -> None:
        """Ask those whose turn it is.

        Raises:
            Unavailable: while the registry cannot be reached.

        """
        snapshot = self._directory.snapshot
        if snapshot is None:
            return
        for seller_id in await self._checks.claim(self._settings.every_s, self._settings.at_once):
            seller = snapshot.sellers.get(seller_id)
            if seller is not None:
                await self._check(seller)

    async def _check(self, seller: Seller) -> None:
        found = await self._ask(seller)
        if found is None or isinstance(found, CallFailed) or found == seller.capabilities:
            return
        now = self._directory.snapshot
        if now is None or now.sellers.get(seller.seller_id) != seller:
            # Somebody has changed it meanwhile: theirs stands, and its turn comes again.
            return
        try:
            await self._registry.register([replace(seller, capabilities=found)])
        except InvalidArgument as error:
            _log.error("a seller can do less than it must: not taken over", detail=error.message)
        else:
            _log.info("a seller can do something else now", seller_id=seller.seller_id)

    async def _ask(self, seller: Seller) -> CapabilitiesOutcome | None:
        """Ask one seller, if admission lets the call pass now; None if not: its turn comes again."""
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
