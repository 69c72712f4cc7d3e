"""The two ledgers behind one face: the scripts in a real Valkey, and their twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import redis

from sellers.admission import valkey
from sellers.admission.ledger import Report, Request, Rules, Standing, Verdict


class AnyLedger(Protocol):
    def declare_quiet(self, now_ms: int) -> None: ...

    def admit(self, now_ms: int, requests: Sequence[Request]) -> list[Verdict]: ...

    def report(self, now_ms: int, reports: Sequence[Report]) -> None: ...

    def standings(self, now_ms: int, seller_ids: Sequence[str]) -> list[Standing]: ...


class LuaLedger:
    """The scripts, called one after the other with the time passed in."""

    def __init__(self, client: redis.Redis, rules: Rules) -> None:
        self._rules = rules
        self._client = client
        self._scripts = {
            name: client.register_script(valkey.script(name))
            for name in ("admit", "report", "standings", "declare_quiet")
        }

    def declare_quiet(self, now_ms: int) -> None:
        self._run("declare_quiet", (), now_ms)

    def admit(self, now_ms: int, requests: Sequence[Request]) -> list[Verdict]:
        sellers = [request.seller_id for request in requests]
        answer = self._run("admit", sellers, now_ms, valkey.pack_requests(requests))
        return valkey.unpack_verdicts(answer)

    def report(self, now_ms: int, reports: Sequence[Report]) -> None:
        sellers = [report.seller_id for report in reports]
        self._run("report", sellers, now_ms, valkey.pack_reports(reports))

    def standings(self, now_ms: int, seller_ids: Sequence[str]) -> list[Standing]:
        return valkey.unpack_standings(self._run("standings", seller_ids, now_ms))

    def keeps(self, seller: str) -> bool:
        """Say whether Valkey has anything about a seller."""
        return bool(self._client.exists(valkey.keys([seller])[1]))

    def _run(self, name: str, sellers: Sequence[str], now_ms: int, *arguments: bytes) -> bytes:
        answer = self._scripts[name](
            keys=valkey.keys(sellers), args=(valkey.pack_rules(self._rules, now_ms), *arguments)
        )
        return bytes(answer or b"")
