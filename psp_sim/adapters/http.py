"""Stripe's API over HTTP: who asks, idempotency keys, and the faults that the simulator was told to make.

Besides, under ``/_sim``, with the same key, as JSON:

    POST   /_sim/faults               {"operation", "kind", "times": 1, "delay_s": 0, "key": null}: plan a fault
                                      (psp_sim.domain.faults says which there are)
    DELETE /_sim/faults               forget all that are planned
    POST   /_sim/clock                {"advance_s"}: set the simulator's clock forward, so that authorizations lapse
                                      and idempotency keys are forgotten, which they are after 24 hours
    POST   /_sim/events/{id}/resend   deliver an event again
    DELETE /_sim                      forget everything, as if it had just been made
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from psp_sim.adapters import forms, objects
from psp_sim.adapters.payments import Answer
from psp_sim.adapters.sqlite import KeptAnswer
from psp_sim.domain.faults import Fault, FaultKind, Faults, Operation
from psp_sim.domain.model import ApiError, missing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mesh.clock import Clock
    from psp_sim.adapters.forms import Form
    from psp_sim.adapters.payments import Payments
    from psp_sim.adapters.sqlite import SqliteLedger

_KEYS_ARE_KEPT_S = 24 * 3600
_LONGEST_KEY = 255
_TEXT_OF_500 = "An error occurred while processing your request."

_PARAMETERS = {
    Operation.AUTHORIZE: [
        "allowed_payment_method_types",
        "amount",
        "capture_method",
        "confirm",
        "currency",
        "expand",
        "metadata",
        "off_session",
        "payment_method",
    ],
    Operation.CAPTURE: ["amount_to_capture", "expand"],
    Operation.CANCEL: ["cancellation_reason", "expand"],
    Operation.REFUND: ["payment_intent", "amount", "metadata", "reason"],
    Operation.RETRIEVE: ["expand"],
    Operation.LIST: ["created", "limit", "starting_after", "expand"],
    Operation.LIST_REFUNDS: ["payment_intent", "limit"],
    Operation.RETRIEVE_EVENT: [],
}


class _Plan(BaseModel):
    """A fault to come, as it is asked for."""

    model_config = ConfigDict(extra="forbid")

    operation: Operation
    kind: FaultKind
    times: int = Field(default=1, ge=1)
    delay_s: float = Field(default=0.0, ge=0, le=60)
    key: str | None = None


class _Advance(BaseModel):
    """How far to set the clock forward."""

    model_config = ConfigDict(extra="forbid")

    advance_s: int = Field(ge=0)


class StripeApi:
    """Answers HTTP requests."""

    def __init__(
        self,
        ledger: SqliteLedger,
        payments: Payments,
        clock: Clock,
        *,
        now: Callable[[], int],
        api_key: str,
        on_event: Callable[[], None],
    ) -> None:
        """Answer those who show the key, at the simulator's time ``now`` (Unix seconds).

        ``on_event`` is called when there may be events to deliver.
        """
        self._ledger = ledger
        self._payments = payments
        self._clock = clock
        self._now = now
        self._api_key = api_key
        self._on_event = on_event
        self._faults = Faults()
        self._in_use: set[str] = set()

    def application(self) -> web.Application:
        """Make the application that a server runs."""
        application = web.Application(middlewares=[self._guard])
        application.add_routes(
            [
                web.post("/v1/payment_intents", self._authorize),
                web.get("/v1/payment_intents", self._list),
                web.get("/v1/payment_intents/{id}", self._retrieve),
                web.post("/v1/payment_intents/{id}/capture", self._capture),
                web.post("/v1/payment_intents/{id}/cancel", self._cancel),
                web.post("/v1/refunds", self._refund),
                web.get("/v1/refunds", self._list_refunds),
                web.get("/v1/events/{id}", self._retrieve_event),
                web.post("/_sim/faults", self._plan_fault),
                web.delete("/_sim/faults", self._clear_faults),
                web.post("/_sim/clock", self._advance),
                web.post("/_sim/events/{id}/resend", self._resend),
                web.delete("/_sim", self._forget),
            ]
        )
        return application

    # Stripe's

    async def _authorize(self, request: web.Request) -> web.Response:
        return await self._change(request, Operation.AUTHORIZE, self._payments.authorize)

    async def _capture(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return await self._change(
            request, Operation.CAPTURE, lambda form, key: self._payments.capture(name, form, key)
        )

    async def _cancel(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return await self._change(
            request, Operation.CANCEL, lambda form, key: self._payments.cancel(name, form, key)
        )

    async def _refund(self, request: web.Request) -> web.Response:
        return await self._change(request, Operation.REFUND, self._payments.refund)

    async def _retrieve(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return await self._look(
            request, Operation.RETRIEVE, lambda form: self._payments.retrieve(name, form)
        )

    async def _list(self, request: web.Request) -> web.Response:
        return await self._look(request, Operation.LIST, self._payments.list_intents)

    async def _list_refunds(self, request: web.Request) -> web.Response:
        return await self._look(request, Operation.LIST_REFUNDS, self._payments.list_refunds)

    async def _retrieve_event(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return await self._look(
            request, Operation.RETRIEVE_EVENT, lambda _form: self._payments.retrieve_event(name)
        )

    # The simulator's own

    async def _plan_fault(self, request: web.Request) -> web.Response:
        plan = _Plan.model_validate_json(await request.read())
        self._faults.add(Fault(**plan.model_dump()))
        return web.json_response({})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({})

    async def _advance(self, request: web.Request) -> web.Response:
        advance = _Advance.model_validate_json(await request.read())
        self._ledger.set_ahead_s(self._ledger.ahead_s() + advance.advance_s)
        return web.json_response({"now": self._now()})

    async def _resend(self, request: web.Request) -> web.Response:
        event_id = request.match_info["id"]
        if self._ledger.event(event_id) is None:
            raise missing("event", event_id, param="id")
        self._ledger.set_delivered(event_id, delivered=False)
        self._on_event()
        return web.json_response({})

    async def _forget(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        with self._ledger.transaction():
            self._ledger.clear()
        return web.json_response({})

    # How all are answered

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Let those in who show the key, and say what was wrong in Stripe's form."""
        if request.headers.get("Authorization") != f"Bearer {self._api_key}":
            stranger = ApiError(401, "invalid_request_error", "Invalid API Key provided.")
            return web.json_response(objects.error(stranger), status=stranger.status)
        try:
            return await handler(request)
        except ApiError as error:
            return web.json_response(objects.error(error), status=error.status)
        except ValidationError as error:
            return web.json_response({"problems": json.loads(error.json())}, status=400)

    async def _look(
        self, request: web.Request, operation: Operation, look: Callable[[Form], Answer]
    ) -> web.Response:
        form = forms.decoded(request.query.items(), _PARAMETERS[operation])
        fault = self._faults.take(operation, None)
        answer = self._refusal(fault)
        if fault is not None:
            await self._clock.sleep(fault.delay_s)
        if answer is None:
            with self._ledger.transaction():
                answer = look(form)
        self._on_event()
        return self._sent(request, answer, fault)

    async def _change(
        self,
        request: web.Request,
        operation: Operation,
        change: Callable[[Form, str | None], Answer],
    ) -> web.Response:
        """Make a change once for its key, whatever faults are planned."""
        content = await request.text()
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= _LONGEST_KEY:
            raise ApiError(400, "invalid_request_error", "Invalid idempotency key.")
        fault = self._faults.take(operation, key)
        refusal = self._refusal(fault)
        if refusal is not None:
            return self._sent(request, refusal, fault)
        fingerprint = hashlib.sha256(f"{request.path}?{content}".encode()).hexdigest()
        kept = self._kept(key, fingerprint)
        if kept is not None:
            response = self._sent(request, kept, fault)
            response.headers["Idempotent-Replayed"] = "true"
            return response
        form = forms.decoded(parse_qsl(content, keep_blank_values=True), _PARAMETERS[operation])
        if key is not None:
            self._in_use.add(key)
        try:
            if fault is not None and fault.kind is FaultKind.DELAY_BEFORE:
                await self._clock.sleep(fault.delay_s)
            answer = self._done(form, key, fingerprint, fault, change)
        finally:
            self._in_use.discard(key or "")
        self._on_event()
        if fault is not None and fault.kind is FaultKind.DELAY_AFTER:
            await self._clock.sleep(fault.delay_s)
        return self._sent(request, answer, fault)

    def _kept(self, key: str | None, fingerprint: str) -> Answer | None:
        """Give the answer to an earlier request with the key, if there was one."""
        if key is None:
            return None
        if key in self._in_use:
            raise ApiError(
                409,
                "idempotency_error",
                "There is currently another in-progress request using this Idempotency Key.",
                code="idempotency_key_in_use",
            )
        kept = self._ledger.kept_answer(key, self._now() - _KEYS_ARE_KEPT_S)
        if kept is None:
            return None
        if kept.fingerprint != fingerprint:
            raise ApiError(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were first used with.",
            )
        return Answer(kept.status, json.loads(kept.body))

    def _done(
        self,
        form: Form,
        key: str | None,
        fingerprint: str,
        fault: Fault | None,
        change: Callable[[Form, str | None], Answer],
    ) -> Answer:
        """Make the change and keep its answer, in one transaction."""
        broken = Answer(500, objects.error(ApiError(500, "api_error", _TEXT_OF_500)))
        with self._ledger.transaction():
            if fault is not None and fault.kind is FaultKind.ERROR_BEFORE:
                answer = broken
            else:
                try:
                    answer = change(form, key)
                except ApiError as error:
                    answer = Answer(error.status, objects.error(error), kept=error.kept)
            if fault is not None and fault.kind is FaultKind.ERROR_AFTER:
                answer = broken
            if key is not None and answer.kept:
                kept = KeptAnswer(fingerprint, answer.status, json.dumps(answer.body))
                self._ledger.keep_answer(key, kept, self._now())
        return answer

    def _refusal(self, fault: Fault | None) -> Answer | None:
        """Give the answer of a call that is not even begun; None when it is begun."""
        if fault is None:
            return None
        match fault.kind:
            case FaultKind.UNAVAILABLE:
                return Answer(503, objects.error(ApiError(503, "api_error", _TEXT_OF_500)))
            case FaultKind.RATE_LIMITED:
                error = ApiError(429, "invalid_request_error", "Too many.", code="rate_limit")
                return Answer(429, objects.error(error))
            case FaultKind.CUT_BEFORE:
                return Answer(500, {})
            case _:
                return None

    def _sent(self, request: web.Request, answer: Answer, fault: Fault | None) -> web.Response:
        """Give the response; where the fault says so, nobody hears it."""
        cut = {FaultKind.CUT_BEFORE, FaultKind.CUT_AFTER}
        if fault is not None and fault.kind in cut and request.transport is not None:
            request.transport.abort()
        return web.json_response(
            answer.body, status=answer.status, headers={"Request-Id": f"req_{id(request):x}"}
        )
