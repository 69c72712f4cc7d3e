"""Where Bookmesh is and who calls: from options, from the environment, or from the mesh that runs on this machine."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import grpc

from bookmesh_client import (
    BookmeshError,
    Client,
    InvalidArgument,
    NotFound,
    NotPossible,
    TooMany,
    Unauthorized,
    Unavailable,
)
from cli import options
from cli.exits import Exit
from deploy.local.data import CUSTOMERS, DataFolder
from deploy.local.options import HOST
from deploy.local.ports import GRPC
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock

SANDBOX_CARD = "tok_abc123"
"""The payment token for a local mesh: its payment provider is a sandbox, docs/sandbox.md."""

_LOCAL_CUSTOMER = "alice"
_LOCAL_TOKEN_LIFE = timedelta(hours=1)

_KINDS: dict[type, Exit] = {
    InvalidArgument: Exit.USAGE,
    Unauthorized: Exit.REFUSED,
    TooMany: Exit.REFUSED,
    NotFound: Exit.NOT_POSSIBLE,
    NotPossible: Exit.NOT_POSSIBLE,
    Unavailable: Exit.UNREACHABLE,
}

_ADVICE = {
    "PAYMENT_TOKEN_REQUIRED": "give one with --payment-token-stdin, or in BOOKMESH_PAYMENT_TOKEN",
    "OFFER_EXPIRED": "ask anew with `bookmesh buy`, for a --max of that price",
    "IDEMPOTENCY_KEY_REUSED": "`bookmesh list` shows what it was used for",
    "IDEMPOTENCY_KEY_TOO_OLD": "nothing was bought now: `bookmesh list` shows what it was used for, a new key buys",
}


class Refusal(Exception):
    """What a command cannot do: a line on stderr, or an object with ``-o json``; and an exit code.

    Attributes:
        message: what was wrong, and what to do.
        code: the exit code.
        reason: a word in capitals, for programs.
        fields: the values that were wrong, and why.

    """

    def __init__(
        self, message: str, code: Exit, *, reason: str = "", fields: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or code.name
        self.fields = fields or {}


@dataclass(frozen=True, slots=True)
class Door:
    """How to get in.

    Attributes:
        output: ``text`` or ``json``.

    """

    output: str
    data: Path
    given_address: str
    given_token: str
    roots: Path | None

    @property
    def local(self) -> bool:
        """Whether it is the mesh on this machine that is called."""
        return not self.given_address

    @property
    def address(self) -> str:
        """Where it is.

        Raises:
            Refusal: if nobody said, and no mesh was ever started here.

        """
        if self.given_address:
            return self.given_address
        try:
            port = json.loads(DataFolder(self.data).ports.read_text())[GRPC]
        except (OSError, ValueError, KeyError):
            raise Refusal(
                f"no mesh was started on {self.data}: `make up` starts one (--data if it is elsewhere),"
                " or say where Bookmesh is with --address or BOOKMESH_ADDRESS",
                Exit.UNREACHABLE,
                reason="NO_MESH",
            ) from None
        return f"{HOST}:{port}"

    def client(self) -> Client:
        """Make a client; call this in a coroutine.

        Raises:
            Refusal: if there is no address, or no token for it.

        """
        credentials, roots = None, self.roots or self._local_roots()
        if roots is not None:
            credentials = grpc.ssl_channel_credentials(roots.read_bytes())
        try:
            return Client(self.address, self._token(), credentials=credentials)
        except ValueError as error:
            raise Refusal(str(error), Exit.USAGE) from None

    def _local_roots(self) -> Path | None:
        """Give the CA of a mesh on this machine that speaks TLS with its customers."""
        data = DataFolder(self.data)
        return data.authority if self.local and data.certificate(CUSTOMERS).exists() else None

    def card(self, *, from_stdin: bool) -> str:
        """Give the payment token: from stdin, from the environment, the sandbox's, or from whoever is at the terminal.

        Never from the command line, which other users of the machine, and the history of the shell, get to see.

        Raises:
            click.UsageError: if there is none.

        """
        given = self.given_card(from_stdin=from_stdin)
        if given:
            return given
        if self.local:
            return SANDBOX_CARD
        if sys.stdin.isatty():
            return str(click.prompt("Payment token", hide_input=True, err=True))
        raise click.UsageError(
            "there is no payment token: give one with --payment-token-stdin, or in BOOKMESH_PAYMENT_TOKEN"
        )

    def given_card(self, *, from_stdin: bool) -> str:
        """Give the payment token from stdin or from the environment; empty without."""
        if not from_stdin:
            return os.environ.get("BOOKMESH_PAYMENT_TOKEN", "")
        given = sys.stdin.readline().strip()
        if not given:
            raise click.UsageError("there is no payment token on stdin")
        return given

    def run(
        self,
        work: Callable[[Client], Coroutine[Any, Any, Exit]],
        *,
        unknown: Callable[[], str] = lambda: "",
    ) -> None:
        """Do the work of a command and exit.

        Args:
            work: gives the exit code.
            unknown: what is to be said of a purchase when the work is interrupted or Bookmesh is not reached.

        Raises:
            Refusal: whatever was wrong.

        """
        try:
            code = asyncio.run(self._work(work))
        except KeyboardInterrupt:
            click.echo(f"\ninterrupted. {unknown()}".rstrip(), err=True)
            code = Exit.INTERRUPTED
        except BrokenPipeError:
            # Whoever read along has enough; nothing more can be printed, not even by Python at its end.
            with suppress(OSError):
                sys.stdout.close()
            code = Exit.UNEXPECTED
        except BookmeshError as error:
            raise self._refusal(error, unknown()) from None
        sys.exit(code)

    async def _work(self, work: Callable[[Client], Coroutine[Any, Any, Exit]]) -> Exit:
        async with self.client() as client:
            return await work(client)

    def _token(self) -> str:
        if self.given_token:
            return self.given_token
        if not self.local:
            raise Refusal(
                "no token: set BOOKMESH_TOKEN (for a mesh of your own, `bookmesh token` prints one)",
                Exit.REFUSED,
                reason="TOKEN_MISSING",
            )
        from deploy.local.keys import sign_token  # noqa: PLC0415  what signs tokens takes a while to load

        try:
            return sign_token(
                DataFolder(self.data), _LOCAL_CUSTOMER, SystemClock().now(), _LOCAL_TOKEN_LIFE
            )
        except MeshProblem as problem:
            raise Refusal(str(problem), Exit.REFUSED, reason="TOKEN_MISSING") from None

    def _refusal(self, error: BookmeshError, unknown: str) -> Refusal:
        code = next((_KINDS[kind] for kind in type(error).mro() if kind in _KINDS), Exit.UNEXPECTED)
        message = error.message
        # Bookmesh itself would say when to try again.
        if code is Exit.UNREACHABLE and error.retry_after_s is None:
            start = "is it running? `make up` starts it" if self.local else "is that its gRPC API?"
            message = f"Bookmesh does not answer at {self.address}: {start} ({_cause(message)})"
        elif error.code is grpc.StatusCode.UNIMPLEMENTED:
            message = f"what answers at {self.address} is not Bookmesh's gRPC API ({message})"
        elif isinstance(error, Unauthorized) and error.code is grpc.StatusCode.UNAUTHENTICATED:
            message = f"{message}; set BOOKMESH_TOKEN to another one"
        elif error.fields:
            message = "; ".join(f"{name}: {why}" for name, why in error.fields.items())
        if error.retry_after_s is not None:
            message = f"{message}; try again in {error.retry_after_s:.0f} s"
        message = "; ".join(filter(None, (message, _ADVICE.get(error.reason))))
        if code is Exit.UNREACHABLE and unknown:
            message = f"{message}. {unknown}"
        return Refusal(message, code, reason=error.reason, fields=error.fields)


def way_in(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where Bookmesh is, and ``-o``; it gets a ``door`` for them."""

    @options.output
    @options.data
    @click.option(
        "--roots",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="BOOKMESH_ROOTS",
        show_envvar=True,
        help="Certificates (PEM) of the authorities to believe; those that everybody believes when not given.",
    )
    @click.option(
        "--token",
        "given_token",
        envvar="BOOKMESH_TOKEN",
        show_envvar=True,
        default="",
        help="Your bearer token, better in the environment; for a local mesh one of its own when not given.",
    )
    @click.option(
        "--address",
        "given_address",
        envvar="BOOKMESH_ADDRESS",
        show_envvar=True,
        default="",
        help="Of the gRPC API: https://host[:port], http://host:port, or host:port; the mesh on --data when not given.",
    )
    @functools.wraps(command)
    def wrapped(
        *,
        output: str,
        data: Path,
        given_address: str,
        given_token: str,
        roots: Path | None,
        **own: object,
    ) -> None:
        door = Door(output, data, given_address, given_token, roots)
        try:
            command(door=door, **own)
        except Refusal as refusal:
            told = {"reason": refusal.reason, "message": refusal.message, "fields": refusal.fields}
            click.echo(
                json.dumps({"error": told}) if output == "json" else f"Error: {refusal.message}",
                err=True,
            )
            sys.exit(refusal.code)

    return wrapped


card_from_stdin = click.option(
    "--payment-token-stdin",
    "from_stdin",
    is_flag=True,
    help="Read the payment token from stdin; else it is BOOKMESH_PAYMENT_TOKEN.",
)


def goes_on(request_id: str) -> str:
    """Say that a purchase goes on without whoever watched it; nothing if there is none."""
    if not request_id:
        return ""
    watch, cancel = (options.again(f"bookmesh {what} {request_id}") for what in ("watch", "cancel"))
    return f"The purchase goes on: `{watch}` shows it, `{cancel}` stops it"


def _cause(message: str) -> str:
    """Give the end of what gRPC says about a connection that did not come about, which is its cause."""
    return message.removesuffix(": OK").rsplit(": ", 1)[-1].rstrip("]") or "no reason given"
