"""A mail server that is half configured is noticed at the start."""

from __future__ import annotations

import pytest

from mesh.settings import load
from orchestrator.settings import Settings

REQUIRED = {
    "DATABASE_URL": "postgresql://",
    "VALKEY_URL": "redis://valkey",
    "AGGREGATOR_TARGET": "dns:///aggregator",
    "TOKEN_KEYRING_FILE": "keyring.json",
    "SELLER_CREDENTIALS_FILE": "credentials.json",
    "JWKS_FILE": "jwks.json",
    "JWT_ISSUER": "https://issuer.test",
    "JWT_AUDIENCE": "bookmesh",
}
MAIL = {"SMTP_HOST": "mail.test", "SMTP_FROM": "no-reply@bookmesh.test"}
LOGIN = {"SMTP_USER": "bookmesh", "SMTP_PASSWORD": "secret"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    for name, value in {**REQUIRED, **request.param}.items():
        monkeypatch.setenv(f"BOOKMESH_{name}", value)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("told", [{}, MAIL, {**MAIL, **LOGIN}], indirect=True)
def test_what_is_whole_is_taken() -> None:
    assert load(Settings).smtp_security == "starttls"


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"SMTP_HOST": "mail.test"}, "BOOKMESH_SMTP_FROM"),
        ({**MAIL, "SMTP_FROM": "nobody"}, "BOOKMESH_SMTP_FROM"),
        ({**MAIL, "SMTP_USER": "bookmesh"}, "BOOKMESH_SMTP_PASSWORD"),
        ({**MAIL, **LOGIN, "SMTP_SECURITY": "none"}, "BOOKMESH_SMTP_PASSWORD"),
    ],
    indirect=["told"],
)
def test_what_is_missing_is_named(named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(Settings)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [named]
