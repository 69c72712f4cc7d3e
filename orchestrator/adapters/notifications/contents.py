"""What customers are told, in words. Pure."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from customers import form
from orchestrator import convert
from orchestrator.adapters.notifications.letters import Letter, confirmation, letter

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.ports import PurchaseView


class CustomerContents:
    """Says everything as the customer's contract does."""

    def webhook(self, view: PurchaseView, kind: str, happened_at: datetime) -> str:
        """Give the body of a webhook; ``data`` is what GET answers over REST."""
        data = MessageToDict(
            form.purchase_request(convert.purchase(view)),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        timestamp = happened_at.astimezone(UTC).isoformat(timespec="milliseconds")
        body = {
            "type": f"purchase_request.{kind}",
            "timestamp": timestamp.replace("+00:00", "Z"),
            "data": data,
        }
        return json.dumps(body, separators=(",", ":"))

    def email(self, view: PurchaseView, kind: str) -> str:
        """Give an e-mail as JSON: ``subject``, ``text``, ``html``."""
        return write_letter(letter(convert.purchase(view), kind))

    def confirmation(self, code: str) -> str:
        """Give the e-mail with the code by which its receiver confirms the address; as JSON too."""
        return write_letter(confirmation(code))


def write_letter(words: Letter) -> str:
    """Give a letter as JSON."""
    return json.dumps({"subject": words.subject, "text": words.text, "html": words.html})


def read_letter(content: str) -> Letter:
    """Read what ``write_letter`` gave."""
    return Letter(**json.loads(content))
