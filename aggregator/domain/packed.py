"""Answers as bytes: small, not looked at by the garbage collector, and fast both ways.

A packed answer is how long it is good (a little-endian double, in whatever the holder counts: seconds left, a moment of
a clock), a tag, and what the tag says follows. All is little-endian:

======== ==============================================================================================
tag      what follows
======== ==============================================================================================
0 to 4   a quote in one of the conditions: price, shipping, total (minor units of the question's currency),
         quantity (32 bits each), ``expires_at`` and when the seller said so in seconds since 1970 (doubles), the quote
         id in UTF-8
100      a "no": the word of its reason
101      a failed call: kind, 1 if it was definitely not done, seconds to stay away or nothing, detail; a line each
102      not asked: the word of its reason
======== ==============================================================================================

Entries of several sellers travel as frames: length of the seller's id (8 bits), length of the packed answer (16 bits),
then the two. The Lua scripts read the frames, the first double and the tag. Whoever changes any of this gives the keys
in Valkey another prefix, so that the old version and the new do not read one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from sys import intern

from aggregator.domain.collection import Answer, MissReason, Question, Skipped
from mesh.money import Money
from sellers.model import (
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    Unavailable,
    UnavailableReason,
)

_CONDITIONS = (
    Condition.NEW,
    Condition.LIKE_NEW,
    Condition.VERY_GOOD,
    Condition.GOOD,
    Condition.ACCEPTABLE,
)
_TAGS = {condition: tag for tag, condition in enumerate(_CONDITIONS)}
_NO, _FAILED, _SKIPPED = 100, 101, 102

_QUOTE = Struct("<dBIIIIdd")
_OTHER = Struct("<dB")
_GOOD = Struct("<d")
_FRAME = Struct("<BH")

# Making one takes longer than finding it, and books cost much the same: a third off the time of ``unpack``.
_money = lru_cache(maxsize=16_384)(Money)


def pack(good: float, outcome: Quote | Unavailable | CallFailed | Skipped, said_s: float) -> bytes:
    """Pack what a seller answered in the question's currency, or why it did not; ``said_s`` is when, since 1970."""
    if isinstance(outcome, Quote):
        return (
            _QUOTE.pack(
                good,
                _TAGS[outcome.condition],
                outcome.price.minor,
                outcome.shipping.minor,
                outcome.total.minor,
                outcome.quantity,
                outcome.expires_at.timestamp(),
                said_s,
            )
            + outcome.quote_id.encode()
        )
    if isinstance(outcome, Unavailable):
        tag, text = _NO, outcome.reason.value
    elif isinstance(outcome, CallFailed):
        retry_after = "" if outcome.retry_after_s is None else repr(outcome.retry_after_s)
        not_done = int(outcome.definitely_not_done)
        tag, text = _FAILED, f"{outcome.kind}\n{not_done}\n{retry_after}\n{outcome.detail}"
    else:
        tag, text = _SKIPPED, outcome.reason.value
    return _OTHER.pack(good, tag) + text.encode()


def unpack(question: Question, seller_id: str, packed: bytes, now_s: float) -> Answer:
    """Give back what was packed, as an answer that was known already; ``now_s`` is the time since 1970."""
    tag = packed[_GOOD.size]
    if tag >= _NO:
        return Answer(
            seller_id, _unpack_other(tag, packed[_OTHER.size :].decode()), 0.0, cached=True
        )
    currency = question.currency
    _, _, price, shipping, total, quantity, expires, said_s = _QUOTE.unpack_from(packed)
    quote = Quote(
        packed[_QUOTE.size :].decode(),
        _money(currency, price),
        _money(currency, shipping),
        _money(currency, total),
        _CONDITIONS[tag],
        quantity,
        datetime.fromtimestamp(expires, UTC),
    )
    # Said by the clock of another process, perhaps.
    return Answer(seller_id, quote, 0.0, cached=True, age_s=max(0.0, now_s - said_s))


def _unpack_other(tag: int, text: str) -> Unavailable | CallFailed | Skipped:
    if tag == _NO:
        return Unavailable(UnavailableReason(text))
    if tag == _SKIPPED:
        return Skipped(MissReason(text))
    kind, not_done, retry_after, detail = text.split("\n", 3)
    return CallFailed(
        FailureKind(kind),
        definitely_not_done=not_done == "1",
        detail=detail,
        retry_after_s=float(retry_after) if retry_after else None,
    )


def good(packed: bytes) -> float:
    """Give how long a packed answer is good, as it was told."""
    value: float = _GOOD.unpack_from(packed)[0]
    return value


def with_good(packed: bytes, value: float) -> bytes:
    """Give the same answer with how long it is good counted otherwise."""
    return _GOOD.pack(value) + packed[_GOOD.size :]


def is_answer(packed: bytes) -> bool:
    """Tell whether the seller said something, a price or "no"."""
    return packed[_GOOD.size] <= _NO


def frames(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """Join packed answers, each with its seller's id."""
    parts: list[bytes] = []
    for seller_id, packed in entries:
        name = seller_id.encode()
        parts += (_FRAME.pack(len(name), len(packed)), name, packed)
    return b"".join(parts)


def split(joined: bytes) -> Iterator[tuple[str, bytes]]:
    """Give back what was joined."""
    at, end = 0, len(joined)
    while at < end:
        name_length, length = _FRAME.unpack_from(joined, at)
        name_end = at + _FRAME.size + name_length
        at, start = name_end + length, at + _FRAME.size
        # One string a seller in the whole process, however many answers it gives.
        yield intern(joined[start:name_end].decode()), joined[name_end:at]
