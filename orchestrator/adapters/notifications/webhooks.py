"""Webhooks over HTTPS, to addresses that customers choose: nothing about them, or their answers, is trusted."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx

from mesh import errors
from orchestrator.adapters.notifications.addresses import is_loopback, is_public
from orchestrator.domain.notifications import Delivered, NotDelivered, TryOutcome
from orchestrator.notification_ports import UnusableAddress

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives the IP addresses of a name or a literal address; raises ``socket.gaierror``."""

TRY_S = 15.0
"""How long a try may take, from the resolution of the name to the status of the answer, in seconds."""

_CHECK_S = 3.0
_MOST_OF_ANSWER = 65_536
_ANSWER_S = 2.0
_MOST_ADDRESSES = 3
_RETRY_AFTER_S = 5.0
_LAST_PORT = 65_535
_DEFAULT_PORTS = {"https": 443, "http": 80}
_HEADERS = {
    "accept-encoding": "identity",
    "connection": "close",
    "content-type": "application/json",
    "user-agent": "Bookmesh-Webhooks/1",
}
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class HttpWebhookSender:
    """Posts once, over a connection of its own, to an address that was checked.

    The name is resolved once, every address that it has must be public, and the connection goes to one of those very
    addresses, so that a name cannot mean something else a moment later (DNS rebinding). TLS is verified for the name.
    No redirect is followed, no proxy used, no cookie kept; of the answer, 64 KiB are read, for as long as 2 s.
    """

    def __init__(
        self,
        resolve: Resolve,
        tls: ssl.SSLContext,
        *,
        loopback: bool = False,
        try_s: float = TRY_S,
    ) -> None:
        """Keep what is needed; ``loopback`` allows addresses of this machine, and http to them."""
        self._resolve = resolve
        self._tls = tls
        self._loopback = loopback
        self._try_s = try_s

    async def check(self, url: str) -> None:
        """Return when a URL may be sent to, as far as can be told now."""
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._addresses(_parse(url))
        except TimeoutError:
            raise _cannot_resolve() from None
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                raise UnusableAddress("its host is not known") from None
            raise _cannot_resolve() from error

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> TryOutcome:
        """Post a body once. Nothing that the receiver or the network does raises."""
        try:
            async with asyncio.timeout(self._try_s) as limit:
                parsed = _parse(url)
                addresses = await self._addresses(parsed)
                return await self._post(parsed, addresses, body, headers, limit)
        except UnusableAddress as unusable:
            return NotDelivered(str(unusable))
        except TimeoutError:
            return NotDelivered(f"it did not answer within {self._try_s:g} s")
        except OSError:
            # Of the resolution: those of the connection are httpx's.
            return NotDelivered("its host cannot be resolved")
        except _NOT_CONNECTED as error:
            return NotDelivered(_connect_problem(error))
        except httpx.HTTPError:
            return NotDelivered("the connection broke off before it had answered")

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """Resolve the host of a URL, once.

        Raises:
            UnusableAddress: when one of its addresses may not be sent to.
            socket.gaierror: when it has none.

        """
        addresses = await self._resolve(
            url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme]
        )
        local = self._loopback and all(is_loopback(address) for address in addresses)
        if url.scheme != "https" and not local:
            raise UnusableAddress("must begin with https://")
        if not local and not all(is_public(address) for address in addresses):
            raise UnusableAddress("leads to an address that is not public")
        return addresses

    async def _post(
        self,
        url: httpx.URL,
        addresses: list[str],
        body: str,
        headers: Mapping[str, str],
        limit: asyncio.Timeout,
    ) -> TryOutcome:
        *others, last = addresses[:_MOST_ADDRESSES]
        for address in others:
            with suppress(*_NOT_CONNECTED):
                return await self._post_to(url, address, body, headers, limit)
        return await self._post_to(url, last, body, headers, limit)

    async def _post_to(
        self,
        url: httpx.URL,
        address: str,
        body: str,
        headers: Mapping[str, str],
        limit: asyncio.Timeout,
    ) -> TryOutcome:
        """Post to one address of the URL's host. A client each: connections are never shared between customers."""
        # What comes after the connection is limited as a whole.
        timeout = httpx.Timeout(None, connect=self._try_s / _MOST_ADDRESSES)
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=timeout, trust_env=False) as client,
            client.stream(
                "POST",
                url.copy_with(host=address),
                content=body.encode(),
                headers={**_HEADERS, **headers, "host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
                follow_redirects=False,
            ) as response,
        ):
            # The status is in time.
            limit.reschedule(asyncio.get_running_loop().time() + 2 * _ANSWER_S)
            await _read_some(response)
        if response.is_success:
            return Delivered(response.status_code)
        problem = f"it answered {response.status_code}"
        if response.is_redirect:
            problem += ": redirects are not followed, register the address that it leads to"
        return NotDelivered(problem, response.status_code)


@asynccontextmanager
async def system_resolver(threads: int) -> AsyncIterator[Resolve]:
    """Resolve names as this machine does, in threads of its own: a slow name server delays nothing else."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="webhook-names")

    async def resolve(host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                executor, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            )
        except UnicodeError:
            # A label is empty or too long.
            raise socket.gaierror(socket.EAI_NONAME, "no such name") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    try:
        yield resolve
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the usual certificate authorities, and those in a file besides."""
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise UnusableAddress("is not a URL") from None
    if parsed.scheme not in {"https", "http"} or not parsed.host:
        raise UnusableAddress("must begin with https:// and name a host")
    if parsed.port is not None and not 0 < parsed.port <= _LAST_PORT:
        raise UnusableAddress("has a port that does not exist")
    if parsed.userinfo or parsed.fragment:
        raise UnusableAddress("must have no user, no password and no #fragment")
    return parsed


async def _read_some(response: httpx.Response) -> None:
    """Let the receiver finish an answer of reasonable size; whatever else it does, the status counts."""
    read = 0
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_ANSWER_S):
            async for chunk in response.aiter_raw(_MOST_OF_ANSWER):
                read += len(chunk)
                if read >= _MOST_OF_ANSWER:
                    return


def _connect_problem(error: httpx.TransportError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "no TLS connection could be made to it"
        cause = cause.__cause__ or cause.__context__
    return "no connection could be made to it"


def _cannot_resolve() -> errors.Unavailable:
    return errors.Unavailable(
        "the host of the URL cannot be resolved at the moment: try again",
        retry_after_s=_RETRY_AFTER_S,
    )
