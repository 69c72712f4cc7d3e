"""Admission goes by what the service is told."""

from __future__ import annotations

from pathlib import Path

from mesh.settings import SellerCallerSettings
from sellers.admission.model import AdmissionSettings
from sellers.admission.opening import told

REQUIRED = {"valkey_url": "redis://valkey", "seller_credentials_file": Path("credentials.json")}


def test_what_is_not_told_is_the_default() -> None:
    settings = SellerCallerSettings.model_validate(REQUIRED)
    assert told(settings, 0.2, 0.25) == AdmissionSettings()


def test_each_limit_can_be_told() -> None:
    more = {
        "processes": 4,
        "process_index": 3,
        "warm_up_s": 70.0,
        "send_within_s": 0.1,
        "valkey_timeout_s": 1.5,
        "local_share": 0.29,
        "reserve_share": 0.1,
        "calls_at_once": 3,
        "breaker_failure_share": 0.7,
        "breaker_calls": 5,
        "breaker_open_s": 7.0,
        "alarm_share": 0.57,
    }
    settings = SellerCallerSettings.model_validate(REQUIRED | more)
    assert told(settings, 0.14, 0.31) == AdmissionSettings(
        processes=4,
        process_index=3,
        warm_up_s=70.0,
        send_within_s=0.1,
        valkey_timeout_s=1.5,
        local_percent=29,
        reserve_percent=10,
        browse_percent=14,
        kept_percent=31,
        calls_at_once=3,
        breaker_failure_percent=70,
        breaker_calls=5,
        breaker_open_s=7.0,
        alarm_percent=57,
    )
