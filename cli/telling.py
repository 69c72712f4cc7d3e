"""How a purchase is told to people and to programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC
from decimal import Decimal
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.live import Live

from bookmesh.customer.v1.customer_pb2 import (
    AcceptOfferResponse,
    CreatePurchaseRequestResponse,
    WatchPurchaseRequestResponse,
)
from bookmesh_client import Client, PurchaseRequest, PurchaseStatus
from cli import options
from cli.exits import OF_STATUS, Exit
from cli.live import PurchaseView
from cli.options import again
from mesh.money import DECIMALS, Money

FRAMES_PER_SECOND = 10

AcceptedRequest = CreatePurchaseRequestResponse | AcceptOfferResponse
Tell = Callable[[WatchPurchaseRequestResponse], object]
"""Is told each event of a purchase."""


def as_json(message: Message) -> dict[str, Any]:
    """Give a message as REST has it."""
    shown: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return shown


def print_line(message: Message) -> None:
    """Print a message as one line of JSON."""
    click.echo(json.dumps(as_json(message)))


def amount(value: float, currency: str = "") -> str:
    """Give an amount for people: ``$24.99``, ``24.99 EUR``, or ``24.99`` where the currency is not known."""
    if currency not in DECIMALS:
        return f"{value:.2f}"
    minor = Decimal(repr(value)).scaleb(DECIMALS[currency])
    return str(Money(currency, int(minor)))


def local_time(moment: Timestamp) -> str:
    """Give a moment as the clock on the wall has it."""
    return f"{moment.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def sentences(purchase: PurchaseRequest, currency: str = "") -> str:
    """Say where a purchase stands, and what can be done about it."""
    request_id = purchase.request_id
    match purchase.status:
        case PurchaseStatus.purchased:
            text = (
                f"Bought for {amount(purchase.final_price, currency)} at {purchase.seller_id}"
                f" (confirmation {purchase.confirmation})."
            )
            if purchase.HasField("refunded"):
                text += f"\n{amount(purchase.refunded, currency)} was given back later."
            return text
        case PurchaseStatus.price_not_met if purchase.offer_accepted_by:
            accepted = again(f"bookmesh status {purchase.offer_accepted_by}")
            return f"{purchase.message}.\nThe offer was accepted: {accepted}"
        case PurchaseStatus.price_not_met:
            offer = purchase.offer
            until = local_time(offer.expires_at)
            return (
                f"{purchase.message}.\n{offer.seller_id} offers it for {amount(offer.price, offer.currency_code)}"
                f" until {until}; to take it: {again(f'bookmesh accept {request_id}')}"
            )
        case PurchaseStatus.pending if purchase.cancel_requested:
            return f"Being cancelled: {again(f'bookmesh watch {request_id}')}"
        case PurchaseStatus.pending:
            return f"Still at work: {again(f'bookmesh watch {request_id}')}"
        case _:
            return f"{purchase.message}."


def conclude(purchase: PurchaseRequest, output: str, currency: str = "") -> Exit:
    """Print where a purchase stands; give the exit code for that."""
    if output == "json":
        options.print_json(as_json(purchase))
    else:
        click.echo(sentences(purchase, currency))
    return OF_STATUS[purchase.status]


def begun(accepted: AcceptedRequest, output: str) -> Exit:
    """Print that a purchase was begun; give the exit code for that."""
    if output == "json":
        options.print_json(as_json(accepted))
    else:
        click.echo(f"Begun: {again(f'bookmesh watch {accepted.request_id}')}")
    return Exit.DONE


@contextmanager
def shown_live(view: PurchaseView, output: str) -> Iterator[Tell]:
    """Give what shows the events of a purchase on a terminal as they happen, and nothing elsewhere."""
    console = Console(highlight=False)
    if output == "json" or not console.is_terminal:
        yield lambda _event: None
        return
    with Live(view, console=console, refresh_per_second=FRAMES_PER_SECOND):
        yield lambda event: view.apply(as_json(event))


async def follow(
    client: Client, request_id: str, tell: Tell, within_s: float | None = None
) -> PurchaseRequest:
    """Tell everything that happens in a purchase; give how it ends, or how it is after ``within_s``."""
    try:
        async with asyncio.timeout(within_s), aclosing(client.watch(request_id)) as events:
            async for event in events:
                tell(event)
                if event.HasField("result"):
                    return event.result
    except TimeoutError:
        pass
    return await client.get(request_id)
