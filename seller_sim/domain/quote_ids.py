"""Quote ids that carry the quote, signed, so that a seller need not remember what it quoted."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest

from seller_sim.domain.catalogue import Condition

_payload = struct.Struct(">QIB3s")
_SIGNATURE_LENGTH = 11
_LENGTH = _payload.size + _SIGNATURE_LENGTH


@dataclass(frozen=True, slots=True)
class QuotedPrice:
    """What was quoted: the copy's condition, the total in minor units of a currency, and the end of the quote."""

    condition: Condition
    total_minor: int
    currency: str
    expires_us: int


def quote_id_of(key: bytes, book_id: str, quoted: QuotedPrice) -> str:
    """Give the id of a quote for a book: 36 characters that only who has ``key`` (up to 64 bytes) can make."""
    payload = _payload.pack(
        quoted.expires_us, quoted.total_minor, quoted.condition, quoted.currency.encode()
    )
    return base64.urlsafe_b64encode(payload + _signature(key, book_id, payload)).decode()


def read_quote_id(key: bytes, book_id: str, quote_id: str) -> QuotedPrice | None:
    """Give what was quoted under an id; None when it was not made with this key for this book."""
    try:
        decoded = base64.b64decode(quote_id, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    payload, signature = decoded[: _payload.size], decoded[_payload.size :]
    if len(decoded) != _LENGTH or not compare_digest(signature, _signature(key, book_id, payload)):
        return None
    expires_us, total_minor, condition, currency = _payload.unpack(payload)
    return QuotedPrice(Condition(condition), total_minor, currency.decode(), expires_us)


def _signature(key: bytes, book_id: str, payload: bytes) -> bytes:
    signed = payload + book_id.encode()
    return blake2b(signed, key=key, digest_size=_SIGNATURE_LENGTH).digest()
