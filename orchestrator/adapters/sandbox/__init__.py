"""A payment provider for demos and tests: its ledger is durable, its cards behave as their tokens say.

    token                what it does
    tok_decline          the card is declined
    tok_action_required  the card wants an action of its holder, so it is declined
    tok_invalid          the token is unknown; so is every token that does not begin with "tok_"
    tok_slow             authorized; the answer takes 1.5 s
    tok_slow_decline     declined; the answer takes 3 s, longer than anybody waits for it
    tok_lost_authorize   authorized; the first answer is lost
    tok_lost_capture     authorized; captured, and the first answer to that is lost
    tok_lost_void        authorized; voided, and the first answer to that is lost
    tok_lost_refund      authorized, captured; refunded, and the first answer to that is lost
    tok_capture_fails    authorized; the capture is refused
    tok_refund_fails     authorized, captured; the refund is refused
    tok_expires          authorized for 12 hours
    any other tok_...    authorized for 7 days, captured, voided, refunded, at once

Answers are kept by idempotency key for good; the same key with other content is an error of the caller's program. An
answer that is lost or late has been committed: the same key gives it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from mesh import postgres
from mesh.errors import Unavailable
from mesh.money import Money
from orchestrator.domain.purchase import FailureReason
from orchestrator.ports import (
    AlreadyCaptured,
    Authorized,
    AuthorizeOutcome,
    Captured,
    CaptureOutcome,
    Declined,
    PaymentState,
    ProviderPayment,
    Refunded,
    RefundOutcome,
    Refused,
    Unknown,
    Voided,
    VoidOutcome,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncpg.pool import PoolConnectionProxy

    from mesh.clock import Clock
    from mesh.ids import NewId

_Answer = dict[str, Any]

TIMEOUT_S = 2.0
"""How long a caller of a provider waits for an answer."""

_DECLINES = {
    "tok_decline": FailureReason.CARD_DECLINED,
    "tok_slow_decline": FailureReason.CARD_DECLINED,
    "tok_action_required": FailureReason.ACTION_REQUIRED,
    "tok_invalid": FailureReason.PAYMENT_TOKEN_INVALID,
}
_DELAYS_S = {"tok_slow": 1.5, "tok_slow_decline": 3.0}
_CAPTURE_REFUSED = {"tok_capture_fails"}
_REFUND_REFUSED = {"tok_refund_fails"}
_LIVES = {"tok_expires": timedelta(hours=12)}
_USUAL_LIFE = timedelta(days=7)
_SPECIAL = {
    *_DECLINES,
    *_DELAYS_S,
    "tok_lost_authorize",
    "tok_lost_capture",
    "tok_lost_void",
    "tok_lost_refund",
    *_CAPTURE_REFUSED,
    *_REFUND_REFUSED,
    *_LIVES,
}


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer of the sandbox, of which kind of token, and whether it was given before."""

    answer: _Answer
    kind: str
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Decision:
    """What to answer, and the statement by which that becomes true, if there is one, with its further arguments."""

    answer: _Answer
    effect: str | None = None
    arguments: tuple[int, ...] = ()


class SandboxPaymentProvider:
    """The sandbox, with its ledger in the schema ``sandbox_provider``."""

    reusable_tokens = True

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], clock: Clock, new_id: NewId) -> None:
        """Use a pool of connections to the database with the ledger."""
        self._pool = pool
        self._clock = clock
        self._new_id = new_id
        self._sql = postgres.statements("orchestrator.adapters.sandbox")

    async def authorize(
        self,
        key: str,
        token: str,
        amount: Money,
        reference: str,
        intended_at: datetime,  # noqa: ARG002  keys are kept for good, whenever it was intended
    ) -> AuthorizeOutcome:
        """Reserve an amount on the card behind a token."""
        kind = _kind(token)
        now = self._clock.now()
        authorization_id, capture_before, answer = None, None, _Answer()
        if kind in _DECLINES:
            answer["declined"] = _DECLINES[kind].value
        else:
            authorization_id = f"auth_{self._new_id().hex}"
            capture_before = now + _LIVES.get(kind, _USUAL_LIFE)
            answer["authorization_id"] = authorization_id
            answer["capture_before"] = capture_before.isoformat()
        content = f"authorize {kind} {amount.minor} {amount.currency} {reference}"
        try:
            made = await self._pool.fetchval(
                self._sql["authorize"],
                key,
                content,
                json.dumps(answer),
                authorization_id,
                kind,
                amount.currency,
                amount.minor,
                reference,
                capture_before,
                now,
            )
            answered = (
                _Answered(answer, kind, replayed=False)
                if made
                else await self._replayed(self._pool, key, content, kind)
            )
        except postgres.DOWN as error:
            return _no_answer(error)
        if not answered.replayed and await self._unheard(kind, "tok_lost_authorize"):
            return Unknown("the answer did not arrive")
        if "declined" in answered.answer:
            return Declined(FailureReason(answered.answer["declined"]))
        # Answers that were kept before the sandbox told it have none.
        capture_before = answered.answer.get("capture_before")
        return Authorized(
            answered.answer["authorization_id"],
            datetime.fromisoformat(capture_before) if capture_before else None,
        )

    async def capture(self, key: str, provider_id: str, amount: Money) -> CaptureOutcome:
        """Charge at most what is reserved, once, and release the rest."""

        def decide(payment: asyncpg.Record | None) -> _Decision:
            if payment is None or payment["currency"] != amount.currency:
                return _Decision({"refused": "no_such_authorization"})
            if payment["state"] != "authorized":
                return _Decision({"refused": f"already_{payment['state']}"})
            if payment["lapsed"]:
                return _Decision({"refused": "lapsed"})
            if payment["token_kind"] in _CAPTURE_REFUSED:
                return _Decision({"refused": "insufficient_funds"})
            if amount.minor > payment["authorized_minor"]:
                return _Decision({"refused": "above_authorized"})
            return _Decision({"captured": True}, "capture", (amount.minor,))

        content = f"capture {provider_id} {amount.minor} {amount.currency}"
        answered = await self._once(key, content, provider_id, decide)
        if isinstance(answered, Unknown):
            return answered
        if not answered.replayed and await self._unheard(answered.kind, "tok_lost_capture"):
            return Unknown("the answer did not arrive")
        return Refused(answered.answer["refused"]) if "refused" in answered.answer else Captured()

    async def void(self, key: str, provider_id: str) -> VoidOutcome:
        """Release what is reserved."""

        def decide(payment: asyncpg.Record | None) -> _Decision:
            if payment is not None and payment["state"] == "captured":
                return _Decision({"captured": True})
            return _Decision({}, "void")

        answered = await self._once(key, f"void {provider_id}", provider_id, decide)
        if isinstance(answered, Unknown):
            return answered
        if not answered.replayed and await self._unheard(answered.kind, "tok_lost_void"):
            return Unknown("the answer did not arrive")
        return AlreadyCaptured() if "captured" in answered.answer else Voided()

    async def refund(self, key: str, provider_id: str, amount: Money) -> RefundOutcome:
        """Give back at most what was charged and not given back before."""

        def decide(payment: asyncpg.Record | None) -> _Decision:
            if payment is None or payment["currency"] != amount.currency:
                return _Decision({"refused": "no_such_authorization"})
            if payment["state"] != "captured":
                return _Decision({"refused": "not_captured"})
            if payment["token_kind"] in _REFUND_REFUSED:
                return _Decision({"refused": "card_closed"})
            if amount.minor > payment["captured_minor"] - payment["refunded_minor"]:
                return _Decision({"refused": "above_captured"})
            return _Decision({}, "refund", (amount.minor,))

        content = f"refund {provider_id} {amount.minor} {amount.currency}"
        answered = await self._once(key, content, provider_id, decide)
        if isinstance(answered, Unknown):
            return answered
        if not answered.replayed and await self._unheard(answered.kind, "tok_lost_refund"):
            return Unknown("the answer did not arrive")
        return Refused(answered.answer["refused"]) if "refused" in answered.answer else Refunded()

    async def get(self, provider_id: str) -> ProviderPayment | Unknown | None:
        """Give a payment as it is now."""
        try:
            row = await self._pool.fetchrow(
                self._sql["get_payment"], provider_id, self._clock.now()
            )
        except postgres.DOWN as error:
            return _no_answer(error)
        return None if row is None else _payment(row)

    async def list_since(
        self, since: datetime, page_size: int = 100
    ) -> AsyncIterator[ProviderPayment]:
        """Give all payments made since then, oldest first."""
        last, last_id = since, ""
        while True:
            try:
                rows = await self._pool.fetch(
                    self._sql["list_payments"], self._clock.now(), last, last_id, page_size
                )
            except postgres.DOWN as error:
                raise Unavailable(_no_answer(error).detail) from error
            for row in rows:
                yield _payment(row)
            if len(rows) < page_size:
                return
            last, last_id = rows[-1]["created_at"], rows[-1]["authorization_id"]

    async def _once(
        self,
        key: str,
        content: str,
        provider_id: str,
        decide: Callable[[asyncpg.Record | None], _Decision],
    ) -> _Answered | Unknown:
        """Give the answer that is kept under a key, or decide, act and keep the answer, in one transaction."""
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                [found] = await connection.fetch(
                    self._sql["begin"], key, content, provider_id, self._clock.now()
                )
                payment = found if found["authorization_id"] is not None else None
                kind = payment["token_kind"] if payment is not None else "tok"
                if not found["is_new"]:
                    return await self._replayed(connection, key, content, kind)
                decision = decide(payment)
                answer = json.dumps(decision.answer)
                if decision.effect is None:
                    await connection.execute(self._sql["keep"], key, answer)
                else:
                    await connection.execute(
                        self._sql[decision.effect], key, answer, provider_id, *decision.arguments
                    )
                return _Answered(decision.answer, kind, replayed=False)
        except postgres.DOWN as error:
            return _no_answer(error)

    async def _replayed(
        self,
        connection: asyncpg.Pool[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record],
        key: str,
        content: str,
        kind: str,
    ) -> _Answered:
        """Give the first answer under a key."""
        [kept] = await connection.fetch(self._sql["get_key"], key)
        if kept["content"] != content:
            msg = f"idempotency key {key} was used for other content"
            raise ValueError(msg)
        return _Answered(json.loads(kept["answer"]), kind, replayed=True)

    async def _unheard(self, kind: str, lost: str) -> bool:
        """Take as long as the token says, or as the caller waits; True when the answer does not arrive."""
        delay_s = (
            TIMEOUT_S if kind == lost else _DELAYS_S.get(kind, 0.0) if "authorize" in lost else 0.0
        )
        await self._clock.sleep(min(delay_s, TIMEOUT_S))
        return delay_s >= TIMEOUT_S


def _no_answer(error: BaseException) -> Unknown:
    return Unknown(f"the sandbox's ledger does not answer: {type(error).__name__}")


def _payment(row: asyncpg.Record) -> ProviderPayment:
    currency = row["currency"]
    return ProviderPayment(
        provider_id=row["authorization_id"],
        reference=row["reference"],
        state=PaymentState(row["state"]),
        authorized=Money(currency, row["authorized_minor"]),
        captured=Money(currency, row["captured_minor"]),
        refunded=Money(currency, row["refunded_minor"]),
        capture_before=row["capture_before"],
        created_at=row["created_at"],
    )


def _kind(token: str) -> str:
    """Give what is kept of a token: its special kind, or that it is an ordinary one."""
    if not token.startswith("tok_"):
        return "tok_invalid"
    return token if token in _SPECIAL else "tok"
