"""A plain reader of server-sent events, as the HTML standard has it (9.2.6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that was read; ``event_id`` is the last that was told up to it."""

    name: str
    event_id: str
    data: dict[str, Any]


class EventReader:
    """Takes the stream in pieces, wherever they are cut.

    Attributes:
        events: those that are complete.
        retry_ms: as the server wishes.
        comments: how many there were.

    """

    def __init__(self) -> None:
        self.events: list[Sent] = []
        self.retry_ms: int | None = None
        self.comments = 0
        self._rest = ""
        self._name, self._id, self._data = "message", "", list[str]()

    def feed(self, text: str) -> None:
        """Take some more."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if not line:
            if self._data:
                self.events.append(Sent(self._name, self._id, json.loads("\n".join(self._data))))
            self._name, self._data = "message", []
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "":
                self.comments += 1
            case "event":
                self._name = value
            case "id":
                self._id = value
            case "data":
                self._data.append(value)
            case "retry":
                self.retry_ms = int(value)
            case _:
                raise ValueError(f"{line!r} is no line of server-sent events")
