"""Who is who inside the mesh: certificates of one CA, with the names of services in them.

The service ``orchestrator`` is whoever has a certificate of the mesh's CA for ``orchestrator.bookmesh.internal`` (a DNS
name among the subject's alternative names). Both ends of a connection show theirs: the client checks the server's name,
the server has a list of the names that may call each RPC (``mesh.grpc.interceptor``).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Self, cast

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mesh.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from mesh.settings import ServiceSettings

DOMAIN = ".bookmesh.internal"
"""What follows the name of a service in its certificate."""

TLS_VERSION = b"TLSv1.3"
"""What grpc calls the one version that calls are taken over; it has no setting to offer no other."""

_log = structlog.get_logger(__name__)


class CertificateProblem(Exception):
    """Certificates that cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Material:
    """What one end of a connection shows, and whom it believes; all PEM.

    Attributes:
        certificate: its own, with those between it and the CA.
        key: the private key to it.
        roots: the CAs that it believes.

    """

    certificate: bytes
    key: bytes
    roots: bytes


class Certificates:
    """The certificate of this process, its key and the CA's certificate, from files, read again when they change.

    Files that cannot be used, or do not belong together because one of them is yet to be replaced, leave those in force
    that were read last. Safe to use from several threads.

    Raises:
        CertificateProblem: when made, if the files cannot be used.

    """

    def __init__(self, certificate: Path, key: Path, roots: Path) -> None:
        self._files = (certificate, key, roots)
        self._lock = threading.Lock()
        self._versions = self._look()
        self._material = self._read()

    def current(self) -> Material:
        """Give what is in force: the same object as long as nothing has changed."""
        with self._lock:
            versions = self._look()
            if versions != self._versions:
                self._versions = versions
                try:
                    material = self._read()
                except CertificateProblem as problem:
                    _log.error("the certificates in use stay in force", problem=str(problem))
                else:
                    if material != self._material:
                        self._material = material
                        _log.info("certificates read", file=str(self._files[0]))
            return self._material

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_version(file) for file in self._files]

    def _read(self) -> Material:
        certificate_file, key_file, roots_file = self._files
        material = Material(*(_content(file) for file in self._files))
        try:
            certificate = x509.load_pem_x509_certificates(material.certificate)[0]
        except ValueError as error:
            raise CertificateProblem(f"{certificate_file} is no certificate: {error}") from None
        try:
            key = load_pem_private_key(material.key, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateProblem(f"{key_file} is no private key: {error}") from None
        try:
            x509.load_pem_x509_certificates(material.roots)
        except ValueError as error:
            raise CertificateProblem(f"{roots_file} is no certificate: {error}") from None
        if key.public_key() != certificate.public_key():
            raise CertificateProblem(f"{key_file} is not the key to {certificate_file}")
        ends = certificate.not_valid_after_utc
        if ends < SystemClock().now().astimezone(UTC):
            _log.error(
                "the certificate has expired: nobody will take it; replace it",
                file=str(certificate_file),
                expired_at=ends.isoformat(),
            )
        return material


def certificates_of(settings: ServiceSettings) -> Certificates | None:
    """Give the certificates that a service is told of; None where it is told of none.

    Raises:
        SystemExit: with status 1, when they cannot be used.

    """
    certificate, key, roots = (
        settings.tls_certificate_file,
        settings.tls_key_file,
        settings.tls_roots_file,
    )
    if certificate is None or key is None or roots is None:
        return None
    try:
        return Certificates(certificate, key, roots)
    except CertificateProblem as problem:
        _log.error("cannot start without usable certificates", problem=str(problem))
        raise SystemExit(1) from None


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Give what one server needs to demand a certificate of our CA from every client; new connections see new files."""
    given = certificates.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        current = certificates.current()
        if current is given:
            return None
        given = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        # The stubs leave out the None by which nothing has changed.
        cast("Callable[[], grpc.ServerCertificateConfiguration]", changed),
        require_client_authentication=True,
    )


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    """Give what a client needs to show its certificate, and to believe servers with one of our CA."""
    return grpc.ssl_channel_credentials(material.roots, material.key, material.certificate)


def server_name(service: str) -> str:
    """Give the name in the certificate of whoever answers a gRPC service.

    It is in the service's package: ``bookmesh.orchestrator.v1.PurchaseService`` is answered by
    ``orchestrator.bookmesh.internal``.
    """
    return service.split(".")[1] + DOMAIN


def named(name: str) -> list[tuple[str, str]]:
    """Give the options of a channel to a server that is called by an address, but has this name in its certificate."""
    return [("grpc.ssl_target_name_override", name)]


def callers(auth_context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """Give the names of services in the certificate of a connection's other end; none without a certificate."""
    names = (name.decode(errors="replace") for name in auth_context.get("peer_dns", ()))
    return frozenset(name.removesuffix(DOMAIN) for name in names if name.endswith(DOMAIN))


class RenewedChannel(grpc.aio.Channel):
    """A channel that is opened anew when the certificates change.

    New calls go over the new one as soon as it is connected: nobody waits for it, and certificates that the other end
    refuses change nothing. Calls under way end on the old one.
    """

    def __init__(
        self, certificates: Certificates, connect: Callable[[Material], grpc.aio.Channel]
    ) -> None:
        self._certificates = certificates
        self._connect = connect
        self._material = certificates.current()
        self._channel = connect(self._material)
        self._next: grpc.aio.Channel | None = None

    def current(self) -> grpc.aio.Channel:
        """Give the channel for new calls."""
        material = self._certificates.current()
        if material is not self._material:
            self._material = material
            self._next = self._connect(material)
        ready = grpc.ChannelConnectivity.READY
        if self._next is not None and (
            self._next.get_state(try_to_connect=True) is ready
            or self._channel.get_state() is not ready
        ):
            self._channel, self._next = self._next, None
        return self._channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        for channel in (self._channel, self._next):
            if channel is not None:
                await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002  as grpc has it
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))


class _Method:
    """What calls a method over the channel that is current at the time."""

    def __init__(
        self, channel: RenewedChannel, make: Callable[[grpc.aio.Channel], Callable[..., Any]]
    ) -> None:
        self._renewed = channel
        self._make = make
        self._channel = channel.current()
        self._method = make(self._channel)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on
        channel = self._renewed.current()
        if channel is not self._channel:
            self._channel, self._method = channel, self._make(channel)
        call = self._method(*args, **kwargs)
        # An old channel closes itself when nobody holds it any more; a call that goes over it does.
        call.add_done_callback(lambda _call, _held=channel: None)
        return call


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], material.roots
    )


def _version(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateProblem(f"cannot read {file}: {error.strerror}") from None
