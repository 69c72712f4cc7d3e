"""Tokens of pages: where the next page begins, and of which list it is one.

A token is 32 bytes in URL-safe base64: the time at which the last purchase of the page was made (microseconds since
1970, 8 bytes), its id (16), and 8 bytes of a digest of the customer and what is wanted. The digest is no secret and
guards nothing: a list never has another customer's purchases, whatever the token says. It tells a mistake from a page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import TYPE_CHECKING
from uuid import UUID

from mesh import errors
from orchestrator.ports import Place

if TYPE_CHECKING:
    from orchestrator.ports import Wanted

_TOKEN = Struct(">q16s8s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def token_of(last: Place, customer_id: str, wanted: Wanted) -> str:
    """Give the token of the page behind the last purchase of this one."""
    micros = (last.created_at - _EPOCH) // _MICROSECOND
    packed = _TOKEN.pack(micros, last.request_id.bytes, _digest(customer_id, wanted))
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def place_of(token: str, customer_id: str, wanted: Wanted) -> Place:
    """Give the place behind which a page begins.

    Raises:
        InvalidArgument: when the token was given out for another list, or not at all.

    """
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if len(packed) != _TOKEN.size:
            raise _wrong("is not a token that this service gave out")
        micros, request_id, digest = _TOKEN.unpack(packed)
        place = Place(_EPOCH + micros * _MICROSECOND, UUID(bytes=request_id))
    except (ValueError, OverflowError, binascii.Error):
        raise _wrong("is not a token that this service gave out") from None
    if digest != _digest(customer_id, wanted):
        raise _wrong("belongs to another list: send the same filters as for the first page")
    return place


def _digest(customer_id: str, wanted: Wanted) -> bytes:
    after, before = wanted.created_after, wanted.created_before
    content = json.dumps(
        [
            customer_id,
            sorted(wanted.statuses),
            wanted.book_id,
            after.isoformat() if after else None,
            before.isoformat() if before else None,
        ]
    )
    return hashlib.sha256(content.encode()).digest()[:8]


def _wrong(problem: str) -> errors.InvalidArgument:
    field = errors.FieldViolation("page_token", problem)
    return errors.InvalidArgument(f"{field.field}: {problem}", fields=(field,))
