"""The commands of customers as they type them: what is printed, where it goes, and the exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc
import pytest
import trustme
from click.testing import CliRunner
from rich.console import Console

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh_client import PurchaseStatus
from cli import main
from cli.list import as_table
from mesh import errors
from mesh.errors import FieldViolation, MeshError
from tests.fakes.front import (
    NEXT_REQUEST_ID,
    REQUEST_ID,
    TOKEN,
    Front,
    ended,
    fronted,
    price_not_met,
    purchased,
)

TRIES = 5
"""How often the client asks before it gives up."""

BUY = ("buy", "978-0134685991", "--max", "29.99")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Bookmesh = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with fronted() as front:
        yield front


@pytest.fixture
def environment(front: Front) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "BOOKMESH" not in name}
    return inherited | {
        "BOOKMESH_ADDRESS": front.address,
        "BOOKMESH_TOKEN": TOKEN,
        "BOOKMESH_PAYMENT_TOKEN": "tok_env",
        "TZ": "UTC",
    }


async def started(
    *arguments: str, environment: dict[str, str], stdout: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", *arguments),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )


async def over(process: asyncio.subprocess.Process, stdin: str = "") -> Ended:
    out, err = await process.communicate(stdin.encode())
    assert b"Traceback" not in err
    assert process.returncode is not None
    return Ended(process.returncode, (out or b"").decode(), err.decode())


@pytest.fixture
def bookmesh(environment: dict[str, str]) -> Bookmesh:
    async def bookmesh(*arguments: str, stdin: str = "", **more: str) -> Ended:
        changed = {k: v for k, v in (environment | more).items() if v}
        return await over(await started(*arguments, environment=changed), stdin)

    return bookmesh


async def test_buying_tells_the_outcome_in_a_sentence(front: Front, bookmesh: Bookmesh) -> None:
    result = await bookmesh(*BUY, "--condition", "new", "--condition", "good")
    assert result == Ended(0, "Bought for $24.99 at alpha (confirmation A-1).\n", "")
    assert front.asked[0] == pb.CreatePurchaseRequestRequest(
        book_id="978-0134685991",
        max_price=29.99,
        payment_token="tok_env",
        currency_code="USD",
        conditions=[pb.BookCondition.new, pb.BookCondition.good],
    )


async def test_buying_as_json_is_the_purchase_as_rest_has_it(bookmesh: Bookmesh) -> None:
    result = await bookmesh(*BUY, "-o", "json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == {
        "request_id": REQUEST_ID,
        "status": "purchased",
        "final_price": 24.99,
        "seller_id": "alpha",
        "confirmation": "A-1",
    }


async def test_an_offer_comes_with_how_to_take_it(front: Front, bookmesh: Bookmesh) -> None:
    front.purchase = price_not_met()
    result = await bookmesh(*BUY)
    assert result.code == 3
    assert result.out == (
        "Best price ($34.99) exceeds your max ($29.99).\n"
        f"bravo offers it for $34.99 until 2027-01-15 08:00:00; to take it: bookmesh accept {REQUEST_ID}\n"
    )


@pytest.mark.parametrize(
    ("purchase", "code"),
    [
        (purchased(), 0),
        (price_not_met(), 3),
        (ended(PurchaseStatus.not_available), 4),
        (ended(PurchaseStatus.failed, "out_of_time"), 5),
        (ended(PurchaseStatus.cancelled), 6),
    ],
)
@pytest.mark.parametrize("command", [BUY, ("accept", REQUEST_ID), ("watch", REQUEST_ID)])
async def test_each_outcome_has_an_exit_code(
    front: Front,
    bookmesh: Bookmesh,
    command: tuple[str, ...],
    purchase: pb.PurchaseRequest,
    code: int,
) -> None:
    front.purchase = purchase
    assert (await bookmesh(*command)).code == code


async def test_a_purchase_that_takes_longer_goes_on(front: Front, bookmesh: Bookmesh) -> None:
    front.open_end = True
    front.purchase = ended(PurchaseStatus.pending)
    result = await bookmesh(*BUY, "--within", "0.1")
    assert result == Ended(10, f"Still at work: bookmesh watch {REQUEST_ID}\n", "")


async def test_a_refused_card_is_told_as_the_outcome(front: Front, bookmesh: Bookmesh) -> None:
    front.errors = [
        errors.FailedPrecondition("no", reason="CARD_DECLINED", metadata={"request_id": REQUEST_ID})
    ]
    front.purchase = ended(PurchaseStatus.failed, "card_declined")
    assert await bookmesh(*BUY) == Ended(5, "How it ended.\n", "")


async def test_nobody_has_to_wait(front: Front, bookmesh: Bookmesh) -> None:
    result = await bookmesh(*BUY, "--no-wait")
    assert result == Ended(0, f"Begun: bookmesh watch {REQUEST_ID}\n", "")
    where = ("--address", front.address)
    told = await bookmesh(*BUY, "--no-wait", *where, BOOKMESH_ADDRESS="")
    assert told.out == f"Begun: bookmesh watch {REQUEST_ID} --address {front.address}\n"
    shown = json.loads((await bookmesh(*BUY, "--no-wait", "-o", "json")).out)
    assert shown["request_id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            errors.InvalidArgument("bad", fields=(FieldViolation("book_id", "wrong check digit"),)),
            2,
            "book_id: wrong check digit",
        ),
        (errors.PermissionDenied("not for this"), 7, "not for this"),
        (errors.ResourceExhausted("slowly", retry_after_s=3), 7, "slowly; try again in 3 s"),
        (errors.NotFound("no such request"), 9, "no such request"),
        (errors.FailedPrecondition("over", reason="OFFER_EXPIRED"), 9, "over; ask anew with"),
        (
            errors.AlreadyExists("long ago", reason="IDEMPOTENCY_KEY_TOO_OLD"),
            9,
            "long ago; nothing was bought now: `bookmesh list` shows",
        ),
        (errors.Internal("ours"), 1, "ours"),
        (errors.Unavailable("not now", retry_after_s=1), 8, "not now; try again in 1 s"),
    ],
)
async def test_what_was_refused_is_a_line_and_an_exit_code(
    front: Front, bookmesh: Bookmesh, error: MeshError, code: int, words: str
) -> None:
    front.errors = [error] * (2 * TRIES if isinstance(error, errors.Unavailable) else 2)
    result = await bookmesh("status", REQUEST_ID)
    assert (result.code, result.out) == (code, "")
    [line] = result.err.splitlines()
    assert line.startswith(f"Error: {words}")
    as_json = await bookmesh("status", REQUEST_ID, "-o", "json")
    assert (as_json.code, as_json.out) == (code, "")
    assert json.loads(as_json.err)["error"]["reason"] == error.reason


async def test_a_wrong_token_is_refused_in_a_line(bookmesh: Bookmesh) -> None:
    result = await bookmesh("list", BOOKMESH_TOKEN="another")
    assert (result.code, result.out) == (7, "")
    assert result.err == (
        "Error: the token is not valid: it is malformed; set BOOKMESH_TOKEN to another one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "more", "code", "words"),
    [
        (
            ("list",),
            {"BOOKMESH_TOKEN": "t\u00f6k"},
            7,
            "the token is not valid: it must be visible",
        ),
        ((*BUY, "--idempotency-key", "k\u00e9y"), {}, 2, "idempotency-key: must be visible"),
    ],
)
async def test_what_cannot_be_sent_is_told_in_a_line(
    bookmesh: Bookmesh,
    arguments: tuple[str, ...],
    more: dict[str, str],
    code: int,
    words: str,
) -> None:
    result = await bookmesh(*arguments, **more)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"Error: {words}")
    assert len(result.err.splitlines()) == 1


async def test_an_authority_that_is_not_known_is_told_in_a_line(bookmesh: Bookmesh) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    key, chain = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    result = await bookmesh("list", BOOKMESH_ADDRESS=f"https://127.0.0.1:{port}")
    await server.stop(grace=None)
    assert (result.code, result.out) == (8, "")
    [line] = result.err.splitlines()
    assert line.endswith("(unable to get local issuer certificate)")


def test_ctrl_c_is_130_before_a_command_is_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "import_module", interrupted)
    result = CliRunner().invoke(main.bookmesh, ["list"])
    assert (result.exit_code, result.stderr) == (130, "\ninterrupted.\n")


async def test_an_empty_key_is_not_taken_for_none(front: Front, bookmesh: Bookmesh) -> None:
    """Whoever meant a key and gave an unset variable would buy once more with each try."""
    await bookmesh(*BUY, "--idempotency-key", "")
    assert front.metadata[0]["idempotency-key"] == ""


async def test_no_token_for_a_mesh_elsewhere_is_said(bookmesh: Bookmesh) -> None:
    result = await bookmesh("list", BOOKMESH_TOKEN="")
    assert result.code == 7
    assert result.err.startswith("Error: no token: set BOOKMESH_TOKEN")


async def test_nobody_there_is_said_with_what_is_known_of_the_purchase(bookmesh: Bookmesh) -> None:
    result = await bookmesh(*BUY, "--idempotency-key", "mine", BOOKMESH_ADDRESS="127.0.0.1:1")
    assert (result.code, result.out) == (8, "")
    [line] = result.err.splitlines()
    assert line.startswith("Error: Bookmesh does not answer at 127.0.0.1:1: is that its gRPC API?")
    assert "--idempotency-key mine never buys a second time" in line


async def test_without_a_mesh_on_this_machine_that_is_said(
    bookmesh: Bookmesh, tmp_path: os.PathLike[str]
) -> None:
    result = await bookmesh(*BUY, "--data", str(tmp_path), BOOKMESH_ADDRESS="", BOOKMESH_TOKEN="")
    assert (result.code, result.out) == (8, "")
    assert result.err.startswith(f"Error: no mesh was started on {tmp_path}: `make up` starts one")


@pytest.mark.parametrize(
    "arguments",
    [
        ("buy", "978-0134685991"),
        ("buy", "978-0134685991", "--max", "cheap"),
        ("buy", "978-0134685991", "--max", "-1"),
        ("buy", "978-0134685991", "--max", "NaN"),
        ("buy", "978-0134685991", "--max", "5", "--condition", "torn"),
        ("buy", "978-0134685991", "--max", "5", "--address", "ftp://x"),
        ("buy", "978-0134685991", "--max", "5", "--payment-token-stdin"),
        ("list", "--status", "lost"),
        ("status",),
    ],
)
async def test_wrong_usage_is_2(
    front: Front, bookmesh: Bookmesh, arguments: tuple[str, ...]
) -> None:
    result = await bookmesh(*arguments)
    assert (result.code, result.out) == (2, "")
    assert front.asked == []


async def test_the_payment_token_comes_from_stdin_or_the_environment_and_is_never_shown(
    front: Front, bookmesh: Bookmesh
) -> None:
    result = await bookmesh(*BUY, "--payment-token-stdin", stdin="tok_stdin\n")
    assert result.code == 0
    missing = await bookmesh(*BUY, BOOKMESH_PAYMENT_TOKEN="")
    assert missing.code == 2
    assert "there is no payment token" in missing.err
    [sent] = [r for r in front.asked if isinstance(r, pb.CreatePurchaseRequestRequest)]
    assert sent.payment_token == "tok_stdin"
    assert "tok_stdin" not in result.out + result.err


async def test_an_offer_is_accepted_with_the_first_card_unless_there_is_another(
    front: Front, bookmesh: Bookmesh
) -> None:
    await bookmesh("accept", REQUEST_ID, BOOKMESH_PAYMENT_TOKEN="")
    await bookmesh("accept", REQUEST_ID)
    accepted = [r for r in front.asked if isinstance(r, pb.AcceptOfferRequest)]
    assert [request.payment_token for request in accepted] == ["", "tok_env"]
    watched = [r for r in front.asked if isinstance(r, pb.WatchPurchaseRequestRequest)]
    assert {request.request_id for request in watched} == {NEXT_REQUEST_ID}


async def test_a_cancel_tells_how_it_then_stands(front: Front, bookmesh: Bookmesh) -> None:
    front.purchase = ended(PurchaseStatus.cancelled)
    assert await bookmesh("cancel", REQUEST_ID) == Ended(0, "How it ended.\n", "")
    front.purchase = ended(PurchaseStatus.pending)
    front.purchase.cancel_requested = True
    result = await bookmesh("cancel", REQUEST_ID)
    assert result == Ended(0, f"Being cancelled: bookmesh watch {REQUEST_ID}\n", "")


async def test_a_watch_without_a_terminal_is_lines(bookmesh: Bookmesh) -> None:
    result = await bookmesh("watch", REQUEST_ID)
    assert result.out.splitlines() == [
        "  0.00 s  submitted",
        "  2.00 s  ordering alpha 24.99",
        "  3.00 s  purchased",
        "Bought for 24.99 at alpha (confirmation A-1).",
    ]


async def test_a_watch_as_json_is_a_line_for_each_event(bookmesh: Bookmesh) -> None:
    result = await bookmesh("watch", REQUEST_ID, "-o", "json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["event_id"] for event in events] == ["1", "2", "3", "4"]
    assert events[-1]["result"]["status"] == "purchased"


async def test_a_list_is_a_table_or_json(bookmesh: Bookmesh) -> None:
    lines = (await bookmesh("list", "--status", "purchased")).out.splitlines()
    assert len(lines) == 7
    assert lines[1].split() == [
        *("2027-01-15", "08:00:00", "0-0", "9780134685991", "purchased", "$29.99", "$24.99")
    ]
    shown = json.loads((await bookmesh("list", "-o", "json", "--limit", "3")).out)
    assert [purchase["request_id"] for purchase in shown] == ["0-0", "0-1", "1-0"]


def test_in_a_narrow_terminal_a_list_keeps_ids_in_one_piece() -> None:
    purchase = pb.PurchaseRequestSummary(
        request_id=REQUEST_ID,
        status=PurchaseStatus.price_not_met,
        book_id="9780134685991",
        max_price=29.99,
        lowest_price=34.99,
        currency_code="USD",
    )
    console = Console(width=80, file=io.StringIO())
    console.print(as_table([purchase], console.width))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert any(REQUEST_ID in line and "9780134685991" in line for line in lines)
    assert any("$34.99" in line for line in lines)


async def test_quotes_are_compared(bookmesh: Bookmesh) -> None:
    result = await bookmesh("quotes", "9780134685991")
    assert result.code == 0
    row = ["alpha", "$24.99", "$21.00", "$3.99", "new", "now"]
    assert result.out.splitlines()[1].split() == row
    assert result.out.endswith("to buy: bookmesh buy 9780134685991 --max 24.99\n")
    shown = json.loads((await bookmesh("quotes", "9780134685991", "-o", "json")).out)
    assert shown["quotes"][0]["total"] == 24.99
    assert (await bookmesh("quotes", "nowhere")).code == 4


@pytest.mark.parametrize(
    ("coverage", "words"),
    [
        (
            pb.Coverage(asked=150, of=10_000, chance_cheaper=0.02, expected_saving=1.4),
            "Asked 150 of 10,000; the chance of a cheaper one is 2%, by 1.40 on average.",
        ),
        (
            pb.Coverage(asked=150, of=10_000, chance_cheaper=0.0, expected_saving=0.1),
            "Asked 150 of 10,000; the chance of a cheaper one is below 1%, by 0.10 on average.",
        ),
        (
            pb.Coverage(asked=50, of=300, chance_cheaper=0.9999),
            "Asked 50 of 300; the chance that one of the others has it is above 99%.",
        ),
    ],
)
async def test_it_is_said_what_was_missed_where_some_sellers_of_many_were_asked(
    front: Front, bookmesh: Bookmesh, coverage: pb.Coverage, words: str
) -> None:
    front.coverage = coverage
    assert words in (await bookmesh("quotes", "9780134685991")).out.splitlines()
    assert words in (await bookmesh("quotes", "nowhere")).out.splitlines()


async def test_ctrl_c_says_what_becomes_of_the_purchase(
    front: Front, environment: dict[str, str]
) -> None:
    front.open_end = True
    process = await started(*BUY, environment=environment)
    await front.reached.wait()
    process.send_signal(signal.SIGINT)
    result = await over(process)
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        f"\ninterrupted. The purchase goes on: `bookmesh watch {REQUEST_ID}` shows it,"
        f" `bookmesh cancel {REQUEST_ID}` stops it\n"
    )


async def test_ctrl_c_before_an_answer_says_how_to_find_out(
    front: Front, environment: dict[str, str]
) -> None:
    front.silent = True
    process = await started(*BUY, environment=environment)
    await front.reached.wait()
    process.send_signal(signal.SIGINT)
    result = await over(process)
    assert result.code == 130
    assert "Whether the purchase was begun is not known: `bookmesh list` shows it" in result.err
    assert front.metadata[0]["idempotency-key"] in result.err


async def test_a_reader_that_has_enough_is_no_trouble(
    front: Front, environment: dict[str, str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = await started("watch", REQUEST_ID, environment=environment, stdout=writer)
    os.close(writer)
    result = await over(process)
    assert (result.code, result.err) == (1, "")


@pytest.mark.parametrize("command", [BUY, ("quotes", "9780134685991"), ("watch", REQUEST_ID)])
async def test_on_a_terminal_prices_are_shown_as_they_come(
    environment: dict[str, str], command: tuple[str, ...]
) -> None:
    ours, theirs = pty.openpty()
    process = await started(
        *command, environment=environment | {"TERM": "xterm", "COLUMNS": "100"}, stdout=theirs
    )
    os.close(theirs)
    shown = await asyncio.to_thread(everything, ours)
    assert (await over(process)).code == 0
    assert "━━━" in shown
    assert "\x1b[" in shown


def everything(terminal: int) -> str:
    read = b""
    try:
        while chunk := os.read(terminal, 65536):
            read += chunk
    except OSError:
        pass  # Linux's word for the end.
    os.close(terminal)
    return read.decode()
