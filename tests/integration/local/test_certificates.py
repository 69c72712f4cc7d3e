"""The certificates of a local mesh: made once, for their owner only, and anew in time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from deploy.local.certificates import NAMES, certificates, ensure_certificates
from deploy.local.data import DataFolder
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock

NOW = SystemClock().now()


def read(data: DataFolder) -> dict[str, x509.Certificate]:
    files = {name: data.certificate(name) for name in NAMES} | {"ca": data.authority}
    return {name: x509.load_pem_x509_certificate(file.read_bytes()) for name, file in files.items()}


def test_they_are_made_once_and_are_their_owners_alone(data: DataFolder) -> None:
    ensure_certificates(data, NOW)
    made = read(data)
    for name, certificate in made.items():
        certificate.verify_directly_issued_by(made["ca"])
        if name != "ca":
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert names.value.get_values_for_type(x509.DNSName) == [f"{name}.bookmesh.internal"]
            assert certificate.not_valid_after_utc - NOW <= timedelta(days=90)
    assert data.certificates.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in data.certificates.iterdir()} == {0o600}
    ensure_certificates(data, NOW)
    assert read(data) == made


@pytest.mark.parametrize(
    ("days", "remade"), [(1, False), (59, False), (61, True), (100, True), (276, True)]
)
def test_they_are_made_anew_before_they_end(data: DataFolder, days: int, remade: bool) -> None:  # noqa: FBT001  a column of the table
    ensure_certificates(data, NOW)
    made = read(data)
    ensure_certificates(data, NOW + timedelta(days=days))
    again = read(data)
    assert (again["gateway"] != made["gateway"]) is remade
    # The CA outlives all that it issues.
    assert (again["ca"] != made["ca"]) is (days > 275)
    again["gateway"].verify_directly_issued_by(again["ca"])


@pytest.mark.parametrize("lost", ["ca.pem", "ca-key.pem"])
def test_with_a_new_ca_all_are_new(data: DataFolder, lost: str) -> None:
    ensure_certificates(data, NOW)
    made = read(data)
    (data.certificates / lost).unlink()
    ensure_certificates(data, NOW)
    again = read(data)
    assert not set(made.values()) & set(again.values())


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_what_is_lost_or_broken_is_made_anew(data: DataFolder, content: bytes | None) -> None:
    ensure_certificates(data, NOW)
    made = read(data)
    for broken in (data.certificate("gateway"), data.certificate_key("envoy")):
        if content is None:
            broken.unlink()
        else:
            broken.write_bytes(content)
    ensure_certificates(data, NOW)
    again = read(data)
    assert {name for name in made if made[name] != again[name]} == {"gateway", "envoy"}


def test_without_a_mesh_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(MeshProblem, match=r"operator\.pem: No such file.*`make up` makes"):
        certificates(DataFolder(tmp_path), "operator")
