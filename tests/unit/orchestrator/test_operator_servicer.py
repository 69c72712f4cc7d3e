"""Whose decision is kept: that of the token's subject, whoever the request claims to be of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from uuid import UUID

import pytest

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from mesh import errors
from mesh.tokens.identities import Caller
from orchestrator.operator_servicer import OperatorServicer

if TYPE_CHECKING:
    import grpc

    from orchestrator.app.operators import Operators
    from orchestrator.domain.observations import Resolve

REQUEST_ID = "01980000-0000-7000-8000-000000000000"


@dataclass
class Deciding:
    """Keeps who decided."""

    by: list[str] = field(default_factory=list)

    async def resolve(self, request_id: UUID, operator: str, what: Resolve) -> None:
        self.by.append(operator)


class Tokens:
    """Takes every token for one of Ann, with the scopes that it consists of."""

    async def caller_of(self, token: str) -> Caller:
        return Caller("ann", frozenset(token.split("+")))


@dataclass(frozen=True)
class Call:
    token: str

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


async def resolve(deciding: Deciding, token: str) -> None:
    servicer = OperatorServicer(cast("Operators", deciding), Tokens())
    request = pb.ResolvePurchaseRequest(
        request_id=REQUEST_ID,
        decision=pb.ResolvePurchaseRequest.DECISION_RETRY,
        reason="the seller is back",
        operator="bob",
        flag_number=1,
    )
    context = cast(
        "grpc.aio.ServicerContext[pb.ResolvePurchaseRequest, pb.ResolvePurchaseResponse]",
        Call(token),
    )
    await servicer.ResolvePurchase(request, context)


@pytest.mark.parametrize("token", ["operator", "customer+operator"])
async def test_a_decision_is_its_tokens_subjects(token: str) -> None:
    deciding = Deciding()
    await resolve(deciding, token)
    assert deciding.by == ["ann"]


@pytest.mark.parametrize("token", ["customer", "internal", "customer+internal", "operators"])
async def test_who_is_no_operator_decides_nothing(token: str) -> None:
    deciding = Deciding()
    with pytest.raises(errors.PermissionDenied) as caught:
        await resolve(deciding, token)
    assert (caught.value.reason, deciding.by) == ("SCOPE_MISSING", [])
