"""``bookmesh operator``: what no rule can decide, for whoever has to."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyPb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from bookmesh.orchestrator.v1.orchestrator_pb2_grpc import OperatorServiceStub
from cli import options
from deploy.local.certificates import OPERATOR
from deploy.local.data import DataFolder
from deploy.local.keys import sign_token
from deploy.local.problem import MeshProblem
from deploy.local.services import target as local_target
from mesh import convert
from mesh.clock import SystemClock
from mesh.errors import MeshError, Unavailable
from mesh.grpc.channel import open_channel
from mesh.grpc.errors import translated
from mesh.grpc.tls import CertificateProblem, Certificates
from mesh.money import MoneyError, from_decimal

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.orchestrator.v1.orchestrator_pb2_grpc import OperatorServiceAsyncStub

_SERVICE = pb.DESCRIPTOR.services_by_name["OperatorService"].full_name
_TIMEOUT_S = 10.0
_TOKEN_LIFE = timedelta(minutes=5)
_PAGE = 500
_WIDTH_OF_A_LOG = 160

_DECISIONS = {
    "retry": "take the last step again",
    "order-stands": "the seller has confirmed the order: --order-id and --total say what",
    "no-order": "there is no order, and there will be none",
    "payment-settled": "the payment was settled by hand: what the provider says is taken as it is",
    "refund": "give back what was charged",
    "close": "all is settled by hand; nothing is left to do",
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Door:
    """Where the orchestrators are, and what to show them."""

    target: str
    certificates: Certificates
    token: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries."""
        return (("authorization", f"Bearer {self.token}"),)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OperatorServiceAsyncStub]:
        """Give a stub that shows the token; an error of a call becomes one line."""
        try:
            async with open_channel(
                self.target, _SERVICE, certificates=self.certificates
            ) as channel:
                with translated():
                    yield OperatorServiceStub(channel)
        except Unavailable as error:
            raise click.ClickException(
                f"no orchestrator at {self.target} answers ({error.message}): does it run, and take this certificate?"
            ) from None
        except MeshError as error:
            raise click.ClickException(error.message) from None


def _file(name: str, what: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    return click.option(
        f"--{name}",
        f"{name}_file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=f"BOOKMESH_TLS_{name.upper()}_FILE",
        help=f"{what}; that of the local mesh if not given.",
    )


def _at_the_door(
    command: Callable[Concatenate[Door, _P], Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Give a command the options by which it finds the orchestrators, and run it."""

    @click.option(
        "--target",
        envvar="BOOKMESH_ORCHESTRATOR_TARGET",
        help="gRPC target of all orchestrators, dns:///orchestrator:9000; those of the local mesh if not given.",
    )
    @_file("certificate", "The operator's certificate, PEM")
    @_file("key", "The private key to it")
    @_file("roots", "The certificate of the mesh's CA")
    @options.data
    @options.output
    @wraps(command)
    def run(
        target: str | None,
        certificate_file: Path | None,
        key_file: Path | None,
        roots_file: Path | None,
        data: Path,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> None:
        folder = DataFolder(data)
        try:
            certificates = Certificates(
                certificate_file or folder.certificate(OPERATOR),
                key_file or folder.certificate_key(OPERATOR),
                roots_file or folder.authority,
            )
        except CertificateProblem as problem:
            raise click.ClickException(
                f"{problem}: name the files, or with --data the folder of a local mesh"
            ) from None
        door = Door(target or _local(folder), certificates, _token(folder))
        asyncio.run(command(door, *args, **kwargs))

    return run


def _token(folder: DataFolder) -> str:
    """Give the token that says who decides: of the environment, or one that the local mesh takes."""
    if given := os.environ.get("BOOKMESH_OPERATOR_TOKEN"):
        return given.strip()
    name = f"{getpass.getuser()}@{socket.gethostname()}"
    try:
        return sign_token(folder, name, SystemClock().now(), _TOKEN_LIFE, scope="operator")
    except MeshProblem as problem:
        raise click.ClickException(
            f"no token, which BOOKMESH_OPERATOR_TOKEN may have: {problem}"
        ) from None


def _local(folder: DataFolder) -> str:
    try:
        ports: dict[str, int] = json.loads(folder.ports.read_text())
    except (OSError, ValueError):
        ports = {}
    found = [port for name, port in ports.items() if _is_orchestrator(name)]
    if not found:
        raise click.ClickException(
            f"there is no mesh in {folder.root}: start one with `make up`, or name the orchestrators with --target"
        )
    return local_target(found)


def _is_orchestrator(name: str) -> bool:
    return name.startswith("orchestrator-") and not name.endswith("-admin")


@click.group(
    name="operator",
    help="See and decide what no rule can: flagged purchases."
    "\n\nWho decides is the subject of the token in BOOKMESH_OPERATOR_TOKEN, which has the scope operator; for the"
    " local mesh one is made with your name if there is none.",
)
def command() -> None:
    """Have subcommands."""


@command.command(help="List the purchases that wait for a decision, the oldest first.")
@_at_the_door
async def flags(door: Door, output: str) -> None:
    """Print all open flags."""
    found: list[pb.Flag] = []
    async with door.opened() as stub:
        token = ""
        while True:
            page = await stub.ListFlags(
                pb.ListFlagsRequest(page_size=_PAGE, page_token=token),
                metadata=door.metadata,
                timeout=_TIMEOUT_S,
            )
            found += page.flags
            token = page.next_page_token
            if not token:
                break
    if output == "json":
        options.print_json([_as_json(flag) for flag in found])
    elif not found:
        click.echo("No purchase waits for a decision.")
    else:
        _console().print(_flags_table(found))


@command.command(help="Show all that is known of a purchase.")
@click.argument("request_id", type=click.UUID)
@_at_the_door
async def inspect(door: Door, request_id: UUID, output: str) -> None:
    """Print a purchase with its payment, attempts, flags, observations and events."""
    async with door.opened() as stub:
        seen = await stub.InspectPurchase(
            pb.InspectPurchaseRequest(request_id=str(request_id)),
            metadata=door.metadata,
            timeout=_TIMEOUT_S,
        )
    if output == "json":
        options.print_json(_as_json(seen))
    else:
        _print_inspection(seen)


@command.command(
    help="Decide about a purchase. A worker acts on it within a second.\n\n\b\n"
    + "\n".join(f"{word:<16} {meaning}" for word, meaning in _DECISIONS.items()),
    # Flags advise in the words of the contract.
    context_settings={"token_normalize_func": lambda word: word.replace("_", "-")},
)
@click.argument("request_id", type=click.UUID)
@click.argument("decision", type=click.Choice(list(_DECISIONS)))
@click.option(
    "--flag",
    "flag_number",
    type=click.IntRange(1),
    required=True,
    help="The number of the flag that you have looked at; if there is a newer one by now, nothing is decided.",
)
@click.option("--reason", required=True, help="Why; kept.")
@click.option("--order-id", default="", help="The seller's name for the order; with order-stands.")
@click.option("--total", help="What the seller charges, like 24.99; with order-stands.")
@click.option("--currency", default="USD", show_default=True, help="The currency of --total.")
@_at_the_door
async def resolve(
    door: Door,
    *,
    request_id: UUID,
    decision: str,
    flag_number: int,
    reason: str,
    order_id: str,
    total: str | None,
    currency: str,
    output: str,
) -> None:
    """Send a decision."""
    word = "DECISION_" + decision.replace("-", "_").upper()
    request = pb.ResolvePurchaseRequest(
        request_id=str(request_id),
        decision=pb.ResolvePurchaseRequest.Decision.Value(word),
        reason=reason,
        order_id=order_id,
        total=_money(currency, total) if total else None,
        flag_number=flag_number,
    )
    if decision == "order-stands" and not (order_id and total):
        raise click.UsageError("order-stands needs --order-id and --total, as the seller says")
    async with door.opened() as stub:
        await stub.ResolvePurchase(request, metadata=door.metadata, timeout=_TIMEOUT_S)
    if output == "json":
        options.print_json({"request_id": str(request_id), "decision": decision})
    else:
        click.echo(f"{decision} for {request_id} was kept: a worker acts on it now.")


def _money(currency: str, text: str) -> MoneyPb:
    try:
        return convert.money_to_proto(from_decimal(currency, Decimal(text)))
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is no amount", param_hint="--total") from None
    except MoneyError as error:
        raise click.BadParameter(str(error), param_hint="--total") from None


def _print_inspection(seen: pb.InspectPurchaseResponse) -> None:
    console, purchase, payment = _console(), seen.purchase, seen.payment
    console.print(Text(purchase.request_id, style="bold"))
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("customer", seen.customer_id),
        ("book", purchase.book_id),
        ("status", _word(pb.Purchase.Status.Name(purchase.status), "STATUS_")),
        ("stage", f"{seen.stage}, tried {seen.tries} times, claimed {seen.epoch} times"),
        ("goes on", _time(seen.due_time) if seen.HasField("due_time") else "not by itself"),
        ("most", _amount(purchase.max_price)),
        ("payment", f"{payment.state} {payment.provider_id}"),
        ("authorized", _amount(payment.authorized)),
        ("captured", _amount(payment.captured)),
        ("refunded", _amount(payment.refunded)),
    ):
        if value.strip():
            facts.add_row(Text(name, style="dim"), Text(value))
    console.print(facts)
    if seen.attempts:
        attempts = _table("", "seller", "agreed", "charged", "order", "outcome", "begun")
        for attempt in seen.attempts:
            attempts.add_row(
                str(attempt.number),
                attempt.seller_id,
                _amount(attempt.agreed),
                _amount(attempt.charged),
                attempt.order_id,
                attempt.outcome or "under way",
                _time(attempt.begin_time),
            )
        console.print(attempts)
    if seen.flags:
        console.print(_flags_table(seen.flags))
    told = _table("when", "what", "seller", "amount", "why")
    for event in seen.events:
        if event.HasField("step"):
            step = event.step
            told.add_row(
                _time(event.event_time),
                _word(pb.Step.Name.Name(step.name), "NAME_"),
                step.seller_id,
                _amount(step.total),
                Text(step.reason),
            )
    for observation in seen.observations:
        told.add_row(
            _time(observation.observe_time),
            observation.kind.replace("_", " "),
            "",
            "",
            Text(f"{observation.observed_by}: {observation.detail}"),
        )
    console.print(told)


def _flags_table(flags: Any) -> Table:  # noqa: ANN401  a list, or protobuf's own of flags
    table = _table("flag", "", "purchase", "raised", "amount", "seen, and what to do")
    for flag in flags:
        done = (
            f"{flag.resolved_by}: {flag.resolution}"
            if flag.HasField("resolve_time")
            else flag.advice
        )
        table.add_row(
            str(flag.number),
            flag.invariant,
            flag.request_id,
            _time(flag.raise_time),
            _amount(flag.amount),
            Text(f"{flag.detail}\n").append(done, style="yellow"),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1))
    for column in columns:
        table.add_column(column)
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_LOG)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")


def _time(time: Timestamp) -> str:
    return f"{time.ToDatetime():%Y-%m-%d %H:%M:%S}"


def _amount(money: MoneyPb) -> str:
    return str(convert.money_from_proto(money)) if money.currency_code else ""


def _as_json(message: Message) -> Any:  # noqa: ANN401  JSON
    return _with_amounts(MessageToDict(message, preserving_proto_field_name=True))


def _with_amounts(value: Any) -> Any:  # noqa: ANN401  JSON
    """Write amounts as decimals: ``{"currency": "USD", "amount": "24.99"}``."""
    match value:
        case {"currency_code": str(code)}:
            money = MoneyPb(
                currency_code=code, units=int(value.get("units", 0)), nanos=value.get("nanos", 0)
            )
            return {"currency": code, "amount": str(convert.money_from_proto(money).decimal())}
        case dict():
            return {name: _with_amounts(part) for name, part in value.items()}
        case list():
            return [_with_amounts(part) for part in value]
        case _:
            return value
