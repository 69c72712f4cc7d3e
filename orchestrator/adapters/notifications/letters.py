"""E-mails to customers: short, plain, the same in text and in HTML. Pure."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from customers import form
from mesh import convert

if TYPE_CHECKING:
    from google.type import money_pb2

_Status = pb.Purchase.Status

_PAGE = """\
<!doctype html>
<html lang="en">
<body style="margin:0;padding:24px;background:#f6f5f2;font:16px/1.5 Georgia,serif;color:#222">
<div style="max-width:520px;margin:auto;padding:24px;background:#fff;border-radius:6px">
<h1 style="margin:0 0 12px;font-size:20px">{title}</h1>
<p style="margin:0 0 16px">{sentence}</p>
<table style="border-collapse:collapse">
{rows}
</table>
<p style="margin:16px 0 0;font-size:13px;color:#777">{closing}</p>
</div>
</body>
</html>
"""
_ROW = '<tr><td style="padding:2px 16px 2px 0;color:#777">{name}</td><td style="padding:2px 0">{value}</td></tr>'
_CLOSING = (
    "Bookmesh sends this because this address is set for notifications of your purchase requests."
)
_CLOSING_OF_A_CODE = "If it was not you, do nothing: without the code nothing more is sent here."


@dataclass(frozen=True, slots=True)
class Letter:
    """An e-mail without its addresses; the subject is one line."""

    subject: str
    text: str
    html: str


def letter(purchase: pb.Purchase, kind: str) -> Letter:
    """Tell the end of a purchase (``final``), or that its price was given back (``refunded``)."""
    book = _plain(purchase.book_id)
    title, sentence = _said(purchase, kind, book)
    facts = [(name, _plain(value)) for name, value in _facts(purchase) if value]
    return _written(title, sentence, facts, _CLOSING)


def confirmation(code: str) -> Letter:
    """Give somebody the code by which the address is confirmed; says nothing that whoever set it could have chosen."""
    sentence = (
        "Somebody, probably you, has set this address to be told of the end of purchase requests. To confirm it, send"
        " this code back within an hour."
    )
    return _written("Your code for Bookmesh", sentence, [("Code", code)], _CLOSING_OF_A_CODE)


def _written(title: str, sentence: str, facts: list[tuple[str, str]], closing: str) -> Letter:
    width = max(len(name) for name, _ in facts) + 2
    text = "\n".join(
        [
            title,
            "",
            sentence,
            "",
            *(f"{name + ':':<{width}}{value}" for name, value in facts),
            "",
            closing,
            "",
        ]
    )
    rows = "\n".join(
        _ROW.format(name=html.escape(name), value=html.escape(value)) for name, value in facts
    )
    page = _PAGE.format(
        title=html.escape(title), sentence=html.escape(sentence), rows=rows, closing=closing
    )
    return Letter(title, text, page)


def _said(purchase: pb.Purchase, kind: str, book: str) -> tuple[str, str]:
    """Give the title and the sentence below it."""
    if kind == "refunded":
        # Whoever decided so, a seller that took the order back or somebody of ours.
        bought = purchase.status == _Status.STATUS_PURCHASED
        why = "The book will not come" if bought else "Nothing was bought, and yet it was charged"
        return (
            f"Refunded: {_money(purchase.refunded)} for book {book}",
            f"{why}: your card gets all of it back.",
        )
    shown = form.purchase_request(purchase)
    match purchase.status:
        case _Status.STATUS_PURCHASED:
            price = _money(purchase.final_price)
            return f"Bought: book {book} for {price}", f"Your card was charged {price}, all in."
        case _Status.STATUS_PRICE_NOT_MET:
            return (
                f"Not bought: book {book} costs more than your limit",
                f"{shown.message}. Nothing was charged.",
            )
        case _Status.STATUS_NOT_AVAILABLE:
            return f"Not bought: nobody has book {book}", f"{shown.message}. Nothing was charged."
        case _Status.STATUS_CANCELLED:
            return f"Cancelled: book {book}", f"{shown.message}."
        case _:
            return f"Not bought: book {book}", f"{shown.message}."


def _facts(purchase: pb.Purchase) -> list[tuple[str, str]]:
    return [
        ("Book", purchase.book_id),
        ("Your limit", _money(purchase.max_price)),
        ("Price", _money(purchase.final_price) if purchase.HasField("final_price") else ""),
        ("Seller", purchase.seller_id),
        ("Confirmation", purchase.confirmation),
        ("Best offer", _money(purchase.offer.total) if purchase.HasField("offer") else ""),
        ("Request", purchase.request_id),
    ]


def _money(amount: money_pb2.Money) -> str:
    return str(convert.money_from_proto(amount))


def _plain(text: str) -> str:
    """Give a text of others without what could end a line or hide something."""
    return "".join(character if character.isprintable() else " " for character in text)
