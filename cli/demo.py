"""``bookmesh demo``."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import click
import httpx
import structlog
from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.syntax import Syntax
from rich.table import Table

from cli.live import PurchaseView
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock

_PATH = "/api/v1/purchase-requests"
_ANSWER_WITHIN_S = 10.0
_FINAL_WITHIN_S = 60.0
_WIDTH_OF_A_LOG = 120


@dataclass(frozen=True, slots=True)
class Wish:
    """A purchase to show, and how it has to end."""

    about: str
    book_id: str
    max_price: float
    ends: str


WISHES = (
    Wish("Effective Java, for at most 29.99", "isbn-978-0134685991", 29.99, "purchased"),
    Wish(
        "Designing Data-Intensive Applications, for at most 29.99",
        "978-1-4493-7332-0",
        29.99,
        "price_not_met",
    ),
    Wish("Codex Seraphinianus, which nobody has", "9780847842131", 29.99, "not_available"),
)


class DemoProblem(Exception):
    """The demo did not go as it has to; the message says where."""


@click.command(
    name="demo", help="Buy three books from 50 sellers through the whole mesh, then exit."
)
@click.option(
    "--sellers",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="How many simulated sellers there are.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".local-demo"),
    show_default=True,
    help="Folder of the demo's data.",
)
def command(sellers: int, data: Path) -> None:
    """Show three purchases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    options = MeshOptions(data=data, http_port=0, grpc_port=0, sellers=sellers)
    try:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH_OF_A_LOG)
        asyncio.run(_show(options, console))
    except (MeshProblem, DemoProblem) as problem:
        raise click.ClickException(str(problem)) from None


async def _show(options: MeshOptions, console: Console) -> None:
    clock = SystemClock()
    started_at = clock.monotonic()

    def report(line: str) -> None:
        console.print(f"{clock.monotonic() - started_at:6.1f} s  {line}", markup=False)

    console.print(f"starting Bookmesh on {options.data}", markup=False)
    async with LocalMesh(options, report=report) as mesh:
        console.print(f"\nREST {mesh.rest_url}, gRPC {mesh.grpc_address}", markup=False)
        headers = {"authorization": f"Bearer {mesh.token()}"}
        async with httpx.AsyncClient(
            base_url=mesh.rest_url, headers=headers, timeout=_ANSWER_WITHIN_S, trust_env=False
        ) as client:
            request_ids = [await _buy(client, wish, console) for wish in WISHES]
        await _show_rows(mesh.dsn, request_ids, console)
    console.print("\n`make up` runs the same mesh and prints a call to try by hand.", markup=False)


async def _buy(client: httpx.AsyncClient, wish: Wish, console: Console) -> UUID:
    """Ask for a book, watch what happens, and check how it ends.

    Raises:
        DemoProblem: if it ends otherwise than it has to.

    """
    body = {
        "book_id": wish.book_id,
        "max_price": wish.max_price,
        "payment_token": "tok_abc123",
    }
    console.print()
    console.rule(wish.about, align="left")
    console.print(f"POST {_PATH} {json.dumps(body)}", markup=False, soft_wrap=True)
    accepted = await client.post(_PATH, json=body)
    if accepted.status_code != httpx.codes.ACCEPTED:
        msg = f"{wish.about}: POST gave {accepted.status_code}: {accepted.text}"
        raise DemoProblem(msg)
    console.print(f"{accepted.status_code} {accepted.reason_phrase}  {accepted.text}", markup=False)
    status_url = accepted.json()["status_url"]
    view = PurchaseView(wish.about, wish.max_price)
    with Live(view, console=console, refresh_per_second=10):
        async with client.stream("GET", f"{status_url}:watch", timeout=_FINAL_WITHIN_S) as events:
            async for line in events.aiter_lines():
                view.apply(json.loads(line))
    if not console.is_terminal:
        console.print()
    answer = await client.get(status_url)
    console.print(f"GET {status_url}", markup=False, soft_wrap=True)
    console.print_json(answer.text)
    _tell_collection(view.collection, console)
    if answer.json().get("status") != wish.ends:
        msg = f"{wish.about}: it has to end as {wish.ends}, and ended as {answer.text}"
        raise DemoProblem(msg)
    return UUID(accepted.json()["request_id"])


def _tell_collection(collection: dict[str, Any] | None, console: Console) -> None:
    if collection is None:
        return
    told = {name: collection.get(name, 0) for name in ("sellers", "asked", "answered", "quoted")}
    console.print(
        f"Of {told['sellers']} sellers {told['asked']} were asked, {told['answered']} answered, "
        f"{told['quoted']} with a price, in {collection.get('elapsed_ms', 0)} ms."
    )


async def _show_rows(dsn: str, request_ids: list[UUID], console: Console) -> None:
    query = resources.files("cli").joinpath("sql", "purchases.sql").read_text()
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(query, request_ids)
    finally:
        await connection.close()
    console.print()
    console.rule("The rows in PostgreSQL", align="left")
    console.print(Syntax(query.strip(), "sql", background_color="default", word_wrap=True))
    table = Table(box=SIMPLE)
    for name in rows[0].keys() if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
