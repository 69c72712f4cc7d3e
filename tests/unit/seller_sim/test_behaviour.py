from __future__ import annotations

import dataclasses

import pytest

from seller_sim.domain.behaviour import SETTINGS, Behaviour, BehaviourError, range_of
from seller_sim.settings import DEMO


def test_settings_that_are_not_named_stay() -> None:
    behaviour = Behaviour(carries=0.2).changed({"error_rate": 0.5, "max_copies": 3.0})
    assert behaviour == Behaviour(carries=0.2, error_rate=0.5, max_copies=3)
    assert isinstance(behaviour.max_copies, int)


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("eror_rate", 0.5, "eror_rate: there is no such setting; there are carries, "),
        ("error_rate", 1.5, "error_rate: must be 0 to 1, is 1.5"),
        ("error_rate", float("nan"), "error_rate: must be 0 to 1, is nan"),
        ("error_rate", "0.5", "error_rate: must be a number, is '0.5'"),
        ("error_rate", True, "error_rate: must be a number, is True"),
        ("max_copies", 2.5, "max_copies: must be a whole number, is 2.5"),
        ("dead", 1, "dead: must be true or false, is 1"),
        ("currency", "usd", "currency: must be an ISO 4217 currency code, is 'usd'"),
        ("currency", 5, "currency: must be an ISO 4217 currency code, is 5"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be(
    setting: str, value: object, complaint: str
) -> None:
    with pytest.raises(BehaviourError) as caught:
        Behaviour().changed({setting: value})
    assert str(caught.value).startswith(complaint)


def test_every_default_is_in_its_range() -> None:
    assert Behaviour().changed(dataclasses.asdict(Behaviour())) == Behaviour()


def test_the_scenario_format_documents_every_setting_and_its_default() -> None:
    header = DEMO.read_text().split("\nseed:")[0]
    for setting in SETTINGS:
        assert setting in header
        default = getattr(Behaviour(), setting)
        text = str(default).lower() if range_of(setting) is None else f"{default:g}"
        assert text in header or str(default) in header, f"{setting}: {text}"
