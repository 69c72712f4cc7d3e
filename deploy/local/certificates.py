"""The certificates by which the parts of a local mesh know each other, and the CA that issues them.

Made at the start of a mesh in its data folder, where they are missing or have not long to live; readable by its owner
only. A mesh that runs reads new ones by itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.data import CUSTOMERS, DataFolder
from deploy.local.files import write
from deploy.local.options import HOST
from deploy.local.problem import MeshProblem
from mesh.grpc import tls
from mesh.grpc.tls import CertificateProblem, Certificates

OPERATOR = "operator"
"""Whoever runs the mesh: registers sellers, decides about purchases, looks into the simulated sellers."""

NAMES = ("aggregator", "envoy", "gateway", "internal", OPERATOR, "orchestrator", "sellersim")
"""Who has a certificate; ``internal`` is for services of the house that call the gateway."""

_LIFE = timedelta(days=90)
_CA_LIFE = timedelta(days=365)
_LEAST_LEFT = timedelta(days=30)
_BACKDATED = timedelta(minutes=5)
_SERVER = [ExtendedKeyUsageOID.SERVER_AUTH]
_BOTH_ENDS = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
_THIS_MACHINE = [
    x509.DNSName("localhost"),
    x509.IPAddress(IPv4Address(HOST)),
    x509.IPAddress(IPv6Address("::1")),
]


def ensure_certificates(data: DataFolder, now: datetime) -> None:
    """Make what is missing, near its end, or not issued by the CA that is there."""
    authority = _authority(data, now)
    for name in NAMES:
        if not _good(data.certificate(name), data.certificate_key(name), now, authority):
            issue(data, name, now)


def ensure_shown_to_customers(data: DataFolder, now: datetime, *, tls: bool) -> None:
    """Make the certificate that customers are shown; see that there is none, when they are to have plain text.

    It is for this machine's names, and lets nobody in anywhere.
    """
    files = data.certificate(CUSTOMERS), data.certificate_key(CUSTOMERS)
    if not tls:
        for file in files:
            file.unlink(missing_ok=True)
    elif not _good(*files, now, _authority(data, now)):
        issue(data, CUSTOMERS, now)


def issue(data: DataFolder, name: str, now: datetime, life: timedelta = _LIFE) -> None:
    """Make the certificate of one part anew, and its key."""
    authority = _read(data.authority, data.authority_key)
    if authority is None:
        msg = f"there is no CA in {data.certificates}: `make up` makes one (--data if it is elsewhere)"
        raise MeshProblem(msg)
    issuer, issuer_key = authority
    shown = name == CUSTOMERS
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(f"Bookmesh {name}", issuer.subject, now, life)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                _THIS_MACHINE if shown else [x509.DNSName(name + tls.DOMAIN)]
            ),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage(_SERVER if shown else _BOTH_ENDS), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    _write_pair(data.certificate(name), certificate, data.certificate_key(name), key)


def certificates(data: DataFolder, name: str) -> Certificates:
    """Give the certificate of a part of the mesh that runs on this data folder.

    Raises:
        MeshProblem: if there is none.

    """
    try:
        return Certificates(data.certificate(name), data.certificate_key(name), data.authority)
    except CertificateProblem as problem:
        msg = f"{problem}; `make up` makes certificates (--data if they are elsewhere)"
        raise MeshProblem(msg) from None


def connect(
    data: DataFolder,
    address: str,
    server: str,
    *,
    by: str = OPERATOR,
    options: tuple[tuple[str, int], ...] = (),
) -> grpc.aio.Channel:
    """Open a channel to one process of the mesh that runs on this data folder; the caller closes it.

    Args:
        data: the data folder.
        address: where it listens, ``host:port``.
        server: the name in its certificate (``gateway``).
        by: the name in ours.
        options: further options of the channel.

    """
    return grpc.aio.secure_channel(
        address,
        tls.channel_credentials(certificates(data, by).current()),
        options=[*options, *tls.named(server + tls.DOMAIN)],
    )


def _authority(data: DataFolder, now: datetime) -> x509.Certificate:
    found = _read(data.authority, data.authority_key)
    if found is not None and found[0].not_valid_after_utc - now > _LIFE:
        return found[0]
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("Bookmesh local CA", None, now, _CA_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(data.authority, certificate, data.authority_key, key)
    return certificate


def _builder(
    subject: str, issuer: x509.Name | None, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _good(file: Path, key_file: Path, now: datetime, authority: x509.Certificate) -> bool:
    found = _read(file, key_file)
    if found is None or found[0].not_valid_after_utc - now < _LEAST_LEFT:
        return False
    try:
        found[0].verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read(file: Path, key_file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """Give a certificate and its key; None if they are missing, broken, or do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        return None
    return certificate, key


def _write_pair(
    file: Path, certificate: x509.Certificate, key_file: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    write(
        key_file,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    write(file, certificate.public_bytes(serialization.Encoding.PEM))
