"""Compares our books with the payment provider's and the sellers'. It changes nothing."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from mesh.clock import Clock
from mesh.errors import Unavailable
from orchestrator.app.reconcile.model import (
    PROVIDER,
    Books,
    Comparison,
    Gap,
    OrderBooks,
    Outcome,
    PaymentBooks,
    Period,
    ReconcileSettings,
)
from orchestrator.domain.reconciliation import (
    Booked,
    Finding,
    TheirOrder,
    TheirPayment,
    TheirState,
    missing_payment_findings,
    order_findings,
    own_findings,
    payment_findings,
    stray_order_findings,
    stray_payment_findings,
)
from orchestrator.ports import ProviderPayment, Unknown
from sellers.model import CallFailed, OrderNotFound, OrderPage

_LOOKS = 3
"""How often to look at something whose purchase changes while it is looked at."""

_PAGE = 100
_LONGEST_PAUSE_S = 60.0
_NOBODY = UUID(int=0)


class _Seen:
    """Names that were seen: eight bytes each, so that two of a million are taken for one once in 30 million runs."""

    def __init__(self) -> None:
        self._digests = array("Q")
        self._sealed = False

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, name: str) -> bool:
        if not self._sealed:
            self._digests = array("Q", sorted(self._digests))
            self._sealed = True
        digest = _digest(name)
        place = bisect_left(self._digests, digest)
        return place < len(self._digests) and self._digests[place] == digest

    def add(self, name: str) -> None:
        self._digests.append(_digest(name))
        self._sealed = False


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Suspect:
    """Something that did not agree at first sight: a payment or an order, and the purchase that it is about."""

    request_id: UUID | None
    provider_id: str | None = None
    order: TheirOrder | None = None


class Run:
    """One comparison under way."""

    def __init__(self, period: Period) -> None:
        self.period = period
        self.found = Comparison()
        self.payments_seen = _Seen()
        self.orders_seen = _Seen()
        self.complete: set[str] = set()
        """Whose list was read to its end: sellers by their id, and the provider."""
        self._identities: set[tuple[object, ...]] = set()

    def add(self, findings: Iterable[Finding], most: int) -> None:
        """Take findings in, each once."""
        for finding in findings:
            if finding.identity() in self._identities:
                continue
            if len(self.found.outcomes) >= most:
                self.found.lacks("findings", f"there are more than {most}: only these are listed")
                return
            self._identities.add(finding.identity())
            self.found.outcomes.append(Outcome(finding))

    def full(self, settings: ReconcileSettings) -> bool:
        """Say whether no more entries may be read."""
        return len(self.payments_seen) + len(self.orders_seen) >= settings.entries


class _ProviderSilentError(Exception):
    """The provider does not answer; why."""


class Comparer:
    """Compares three ways: our purchases, the provider's payments, the sellers' orders.

    The provider's payments and each seller's orders are read as lists, page by page, and each entry is looked up in our
    books; then our books are read page by page, and what they name and no list had is asked for by its name. Whatever
    does not agree is looked at a second time by itself before it counts. Who does not answer is a gap, never a finding.
    """

    def __init__(
        self,
        books: Books,
        provider: PaymentBooks,
        sellers: OrderBooks,
        *,
        settings: ReconcileSettings,
        clock: Clock,
    ) -> None:
        self._books = books
        self._provider = provider
        self._sellers = sellers
        self._settings = settings
        self._clock = clock

    async def compare(self, period: Period) -> Run:
        """Compare all that happened in a period, and all that is still open.

        Raises:
            mesh.errors.Unavailable: when our own database does not answer.

        """
        run = Run(period)
        await self._read_payments(run)
        await self._read_orders(run)
        await self._read_books(run)
        return run

    # The provider

    async def _read_payments(self, run: Run) -> None:
        for attempt in range(1, self._settings.tries + 1):
            run.found.payments = 0
            try:
                async with aclosing(self._pages(run.period)) as pages:
                    async for page in pages:
                        await self._compare_payments(run, page)
                        if run.full(self._settings):
                            run.found.lacks(PROVIDER, "it lists too much for one run: begin later")
                            return
            except _ProviderSilentError as silent:
                if attempt == self._settings.tries:
                    run.found.lacks(PROVIDER, str(silent))
                    return
                await self._clock.sleep(attempt)
            else:
                run.complete.add(PROVIDER)
                return

    async def _pages(self, period: Period) -> AsyncGenerator[list[TheirPayment], None]:
        """List the provider's payments.

        Raises:
            _ProviderSilentError: when it does not answer; not when our own database does not answer who reads them.

        """
        page: list[TheirPayment] = []
        try:
            async for payment in self._provider.list_since(
                period.since - self._settings.clocks_apart
            ):
                page.append(_theirs(payment))
                if len(page) == _PAGE:
                    yield page
                    page = []
        except Unavailable as error:
            raise _ProviderSilentError(error.message) from error
        yield page

    async def _compare_payments(self, run: Run, page: list[TheirPayment]) -> None:
        run.found.payments += len(page)
        ids = {p.provider_id: p.request_id() for p in page}
        books = await self._books.booked([found for found in ids.values() if found is not None])
        for payment in page:
            run.payments_seen.add(payment.provider_id)
            request_id = ids[payment.provider_id]
            booked = None if request_id is None else books.get(request_id)
            began_at = payment.created_at if booked is None else booked.created_at
            if began_at >= run.period.until:
                continue
            if any(True for _ in _of_payment(booked, payment)):
                await self._look(run, Suspect(request_id, provider_id=payment.provider_id))

    # The sellers

    async def _read_orders(self, run: Run) -> None:
        at_once = asyncio.Semaphore(self._settings.sellers_at_once)

        async def read(seller_id: str) -> None:
            async with at_once:
                await self._read_orders_of(run, seller_id)

        seller_ids = self._sellers.ids()
        if not seller_ids:
            run.found.lacks("registry", "no seller is known")
        gone: list[Unavailable] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                for seller_id in seller_ids:
                    tasks.create_task(read(seller_id))
        except* Unavailable as several:
            # Sellers that do not answer are gaps: this is our own database.
            gone = [error for error in several.exceptions if isinstance(error, Unavailable)]
        if gone:
            raise gone[0]

    async def _read_orders_of(self, run: Run, seller_id: str) -> None:
        """Read one seller's list to its end, to the end of the period, or to where it cannot go on."""
        since = run.period.since - self._settings.clocks_apart
        end = run.period.until + self._settings.clocks_apart
        token, differences = "", 0
        tokens: set[str] = set()
        for _ in range(self._settings.pages_of_a_seller):
            page = await self._page(seller_id, since, token)
            if isinstance(page, CallFailed):
                run.found.lacks(seller_id, why(page))
                return
            run.found.orders += len(page.orders)
            orders = [
                TheirOrder(seller_id, o.key, o.state, o.buyer_reference, o.updated_at)
                for o in page.orders
            ]
            differences += await self._compare_orders(run, orders)
            token = page.next_page_token
            if not token or (page.orders and page.orders[-1].updated_at > end):
                run.found.sellers += 1
                run.complete.add(seller_id)
                return
            if token in tokens or not page.orders:
                run.found.lacks(seller_id, "its list goes round in circles")
                return
            tokens.add(token)
            if differences > self._settings.findings_of_a_seller:
                run.found.lacks(seller_id, f"more than {differences - 1} of its orders differ")
                return
            if run.full(self._settings):
                run.found.lacks(seller_id, "there are too many orders for one run: begin later")
                return
        run.found.lacks(seller_id, f"its list has no end after {len(tokens)} pages")

    async def _page(self, seller_id: str, since: datetime, token: str) -> OrderPage | CallFailed:
        for attempt in range(1, self._settings.tries + 1):
            page = await self._sellers.list_orders(seller_id, since, token)
            if not isinstance(page, CallFailed) or attempt == self._settings.tries:
                return page
            await self._clock.sleep(min(page.retry_after_s or attempt, _LONGEST_PAUSE_S))
        raise AssertionError("the last try returns")

    async def _compare_orders(self, run: Run, orders: list[TheirOrder]) -> int:
        """Compare a page; give how many of it differ."""
        by_key = await self._books.booked_under([order.key for order in orders])
        named = {order.key: order.request_id() for order in orders if order.key not in by_key}
        by_id = await self._books.booked([found for found in named.values() if found is not None])
        differences = 0
        for order in orders:
            run.orders_seen.add(_name(order.seller_id, order.key))
            booked = by_key.get(order.key) or by_id.get(named.get(order.key) or _NOBODY)
            if booked is not None and not booked.may_be_at(order):
                booked = None
            began_at = order.changed_at if booked is None else booked.created_at
            if began_at is None or began_at >= run.period.until:
                continue
            if any(True for _ in self._of_order(booked, order)):
                differences += 1
                request_id = order.request_id() if booked is None else booked.request_id
                await self._look(run, Suspect(request_id, order=order))
                if differences > self._settings.findings_of_a_seller:
                    return differences
        return differences

    def _of_order(self, booked: Booked | None, order: TheirOrder) -> Iterable[Finding]:
        if booked is None:
            return stray_order_findings(order, self._clock.now())
        return order_findings(booked, order)

    # Our books

    async def _read_books(self, run: Run) -> None:
        async for page in self._books.committed(run.period.since, run.period.until):
            run.found.purchases += len(page)
            for booked in page:
                await self._compare_booked(run, booked)
        async for page in self._books.open(run.period.until):
            for booked in page:
                if booked.created_at < run.period.since:
                    self.compare_alone(run, booked)
            if len(run.found.outcomes) >= self._settings.findings:
                return

    async def _compare_booked(self, run: Run, booked: Booked) -> None:
        """Ask for what a purchase names and no list had."""
        self.compare_alone(run, booked)
        if (
            PROVIDER in run.complete
            and booked.provider_id is not None
            and booked.provider_id not in run.payments_seen
            and any(True for _ in missing_payment_findings(booked))
        ):
            await self._look(run, Suspect(booked.request_id, provider_id=booked.provider_id))
        bought = booked.bought
        if bought is None or booked.under_way:
            return
        if _name(bought.seller_id, bought.key) in run.orders_seen:
            return
        if self._clock.now() - bought.begun_at > self._settings.bounds.keys_kept:
            # By now the seller may have forgotten the key, as it may.
            return
        if bought.seller_id in run.complete:
            order = TheirOrder(bought.seller_id, bought.key, OrderNotFound())
            await self._look(run, Suspect(booked.request_id, order=order))
        elif bought.seller_id not in self._sellers.ids():
            run.found.lacks(bought.seller_id, "it may not be called any more")

    def compare_alone(self, run: Run, booked: Booked) -> None:
        """Look for what is wrong with a purchase by our books alone."""
        findings = own_findings(booked, self._clock.now(), self._settings.bounds)
        run.add(findings, self._settings.findings)

    # A second look

    async def _look(self, run: Run, suspect: Suspect) -> None:
        findings = await self.look(run, suspect)
        run.add(findings or (), self._settings.findings)

    async def look(self, run: Run, suspect: Suspect) -> list[Finding] | None:
        """Look at something by itself; give what does not agree, None when nobody says.

        The purchase is read before and after: what changed meanwhile says nothing.
        """
        for _ in range(_LOOKS):
            before = await self.booked(suspect.request_id)
            theirs = await self._ask(suspect)
            if isinstance(theirs, Gap):
                run.found.lacks(theirs.who, theirs.why)
                return None
            if isinstance(theirs, TheirOrder):
                found = list(self._of_order(before, theirs))
            elif theirs is not None:
                found = list(_of_payment(before, theirs))
            else:
                found = [] if before is None else list(missing_payment_findings(before))
            if not found or await self.booked(suspect.request_id) == before:
                return found
        return []

    async def _ask(self, suspect: Suspect) -> TheirPayment | TheirOrder | Gap | None:
        """Ask whose entry it is for it; None when the provider has none of that name."""
        if suspect.order is not None:
            seller_id = suspect.order.seller_id
            state = await self._sellers.find_order(seller_id, suspect.order.key)
            if isinstance(state, CallFailed):
                return Gap(seller_id, why(state))
            return replace(suspect.order, state=state)
        payment = await self._provider.get(suspect.provider_id or "")
        if isinstance(payment, Unknown):
            return Gap(PROVIDER, payment.detail)
        return None if payment is None else _theirs(payment)

    async def booked(self, request_id: UUID | None) -> Booked | None:
        """Give a purchase as it is now."""
        if request_id is None:
            return None
        return (await self._books.booked([request_id])).get(request_id)


def _of_payment(booked: Booked | None, payment: TheirPayment) -> Iterable[Finding]:
    return stray_payment_findings(payment) if booked is None else payment_findings(booked, payment)


def _theirs(payment: ProviderPayment) -> TheirPayment:
    return TheirPayment(
        payment.provider_id,
        payment.reference,
        TheirState(payment.state.value),
        payment.authorized,
        payment.captured,
        payment.refunded,
        payment.created_at,
    )


def why(failed: CallFailed) -> str:
    """Say for people why a call to a seller failed."""
    return f"{failed.kind}: {failed.detail}"


def _name(seller_id: str, key: str) -> str:
    return f"{seller_id} {key}"
