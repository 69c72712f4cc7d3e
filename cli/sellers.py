"""``bookmesh sellers``: register sellers, and say which of them are asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TextIO, TypeVar

import click
import grpc
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
    RegistryServiceStub,
    SellerHealthServiceStub,
)
from cli import options
from deploy.local.certificates import OPERATOR
from deploy.local.data import DataFolder
from deploy.local.services import target as local_target
from mesh.errors import MeshError, Unavailable
from mesh.grpc.channel import open_channel
from mesh.grpc.errors import translated
from mesh.grpc.tls import CertificateProblem, Certificates

_SERVICES = pb.DESCRIPTOR.services_by_name
_TIMEOUT_S = 10.0
_WIDTH_OF_A_LOG = 160
_STATES = {
    "activate": (pb.Seller.STATE_ACTIVE, "active", "Have sellers asked and bought from."),
    "drain": (
        pb.Seller.STATE_DRAINING,
        "draining",
        "Have sellers asked no more; orders under way are brought to their end.",
    ),
    "disable": (pb.Seller.STATE_DISABLED, "disabled", "Have sellers called no more at all."),
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Door:
    """Where the aggregators are, and what to show them."""

    target: str
    certificates: Certificates

    @asynccontextmanager
    async def opened(self, service: str) -> AsyncIterator[grpc.aio.Channel]:
        """Give a channel to a service; an error of a call becomes one line."""
        name = _SERVICES[service].full_name
        try:
            async with open_channel(self.target, name, certificates=self.certificates) as channel:
                with translated():
                    yield channel
        except Unavailable as error:
            raise click.ClickException(
                f"no aggregator at {self.target} answers ({error.message}): does it run, and take this certificate?"
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
    """Give a command the options by which it finds the aggregators, and run it."""

    @click.option(
        "--target",
        envvar="BOOKMESH_AGGREGATOR_TARGET",
        help="gRPC target of all aggregators, dns:///aggregator:9000; those of the local mesh if not given.",
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
        asyncio.run(command(Door(target or _local(folder), certificates), *args, **kwargs))

    return run


def _local(folder: DataFolder) -> str:
    try:
        ports: dict[str, int] = json.loads(folder.ports.read_text())
    except (OSError, ValueError):
        ports = {}
    found = [
        port
        for name, port in ports.items()
        if name.startswith("aggregator-") and not name.endswith("-admin")
    ]
    if not found:
        raise click.ClickException(
            f"there is no mesh in {folder.root}: start one with `make up`, or name the aggregators with --target"
        )
    return local_target(found)


@click.group(name="sellers", help="Register sellers, and say which of them are asked.")
def command() -> None:
    """Have subcommands."""


@command.command(
    help="Add sellers, or replace what is known of them, all or none.\n\nFILE is JSON: a list of sellers as"
    " docs/sellers.md shows one, or one alone. Soon after each is asked what it can do, and that is believed."
)
@click.argument("file", type=click.File())
@_at_the_door
async def register(door: Door, file: TextIO, output: str) -> None:
    """Send registrations."""
    request = _registration(file.read())
    async with door.opened("RegistryService") as channel:
        answer = await RegistryServiceStub(channel).RegisterSellers(request, timeout=_TIMEOUT_S)
    if output == "json":
        options.print_json({"revision": answer.revision})
    else:
        click.echo(f"Registered: {', '.join(seller.seller_id for seller in request.sellers)}")


def _registration(text: str) -> pb.RegisterSellersRequest:
    try:
        found = json.loads(text)
        sellers = found if isinstance(found, list) else [found]
        return ParseDict({"sellers": sellers}, pb.RegisterSellersRequest())
    except (ValueError, ParseError) as error:
        raise click.BadParameter(f"it is no list of sellers: {error}", param_hint="FILE") from None


@command.command(name="list", help="List all sellers.")
@_at_the_door
async def list_sellers(door: Door, output: str) -> None:
    """Print the registry."""
    found = await _registry(door)
    if output == "json":
        options.print_json([_as_json(seller) for seller in found])
        return
    table = _table("seller", "name", "state", "endpoint", "TLS", "calls/min", "batch", "currencies")
    for seller in found:
        can = seller.capabilities
        table.add_row(
            seller.seller_id,
            seller.display_name,
            _word(pb.Seller.State.Name(seller.state), "STATE_"),
            seller.endpoint,
            "yes" if seller.tls_roots else "no",
            str(can.calls_per_minute),
            str(can.max_batch_size),
            " ".join(can.currency_codes[:5]),
        )
    _console().print(table)


@command.command(help="Show all that is registered of a seller, as JSON that `register` takes.")
@click.argument("seller_id")
@_at_the_door
async def show(door: Door, seller_id: str, output: str) -> None:  # noqa: ARG001  it is the same either way
    """Print one seller."""
    for seller in await _registry(door):
        if seller.seller_id == seller_id:
            options.print_json(_as_json(seller))
            return
    raise click.ClickException(f"not registered: {seller_id}")


def _state_command(verb: str) -> None:
    state, word, text = _STATES[verb]

    async def change(door: Door, seller_ids: Sequence[str], output: str) -> None:
        request = pb.SetSellerStateRequest(seller_ids=seller_ids, state=state)
        async with door.opened("RegistryService") as channel:
            answer = await RegistryServiceStub(channel).SetSellerState(request, timeout=_TIMEOUT_S)
        if output == "json":
            options.print_json({"revision": answer.revision})
        else:
            click.echo(f"Now {word}: {', '.join(seller_ids)}")

    argument = click.argument("seller_ids", nargs=-1, required=True)
    command.command(name=verb, help=text)(argument(_at_the_door(change)))


for _verb in _STATES:
    _state_command(_verb)


@command.command(help="Show how sellers are doing; all that are not disabled if none is named.")
@click.argument("seller_ids", nargs=-1)
@_at_the_door
async def health(door: Door, seller_ids: Sequence[str], output: str) -> None:
    """Print the health of sellers."""
    request = pb.GetSellerHealthRequest(seller_ids=seller_ids)
    async with door.opened("SellerHealthService") as channel:
        answer = await SellerHealthServiceStub(channel).GetSellerHealth(request, timeout=_TIMEOUT_S)
    if output == "json":
        options.print_json([_as_json(seller) for seller in answer.sellers])
        return
    table = _table("seller", "state", "breaker", "calls", "failed", "budget left", "p50", "p90")
    for seller in answer.sellers:
        table.add_row(
            seller.seller_id,
            _word(pb.Seller.State.Name(seller.state), "STATE_"),
            _word(pb.SellerHealth.Breaker.Name(seller.breaker), "BREAKER_"),
            str(seller.calls),
            str(seller.failures),
            str(seller.budget_left),
            *(
                f"{getattr(seller, name).ToTimedelta().total_seconds():.3f} s"
                if seller.HasField(name)
                else ""
                for name in ("latency_p50", "latency_p90")
            ),
        )
    _console().print(table)


async def _registry(door: Door) -> list[pb.Seller]:
    found: dict[str, pb.Seller] = {}
    async with door.opened("RegistryService") as channel:
        watch = RegistryServiceStub(channel).WatchSellers(
            pb.WatchSellersRequest(), timeout=_TIMEOUT_S
        )
        async for chunk in watch:
            found.update({seller.seller_id: seller for seller in chunk.sellers})
            if chunk.complete:
                break
        watch.cancel()
    return [found[name] for name in sorted(found)]


def _as_json(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return shown


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1))
    for column in columns:
        table.add_column(column)
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_LOG)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
