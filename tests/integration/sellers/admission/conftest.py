"""Both ledgers: the twin, and the scripts in a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from sellers.admission.admission import rules_of
from sellers.admission.ledger import Ledger
from sellers.admission.model import AdmissionSettings
from tests.fakes.ledgers import AnyLedger, LuaLedger

RULES = rules_of(AdmissionSettings())


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture(params=["twin", "scripts"])
def ledger(request: pytest.FixtureRequest) -> AnyLedger:
    if request.param == "twin":
        return Ledger(RULES)
    return LuaLedger(request.getfixturevalue("client"), RULES)
