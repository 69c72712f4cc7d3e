"""Buying at a whole mesh with the commands, and with the examples for other programs, as people run them."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Fresh

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


async def run(*command: str, **environment: str) -> Ended:
    clean = {name: value for name, value in os.environ.items() if "BOOKMESH" not in name}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=clean | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert b"Traceback" not in err
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


Bookmesh = Callable[..., Awaitable[Ended]]


@pytest.fixture
def bookmesh(mesh: LocalMesh) -> Bookmesh:
    """Runs a command that finds the mesh by its folder, and nothing else."""

    async def bookmesh(*arguments: str, **environment: str) -> Ended:
        program = (sys.executable, "-m", "cli.main")
        return await run(*program, *arguments, "--data", str(mesh.data.root), **environment)

    return bookmesh


async def test_a_book_is_bought_and_found_again(bookmesh: Bookmesh, fresh: Fresh) -> None:
    book = fresh("ordinary")
    bought = await bookmesh("buy", book, "--max", "29.99", "-o", "json")
    assert (bought.code, bought.err) == (0, "")
    purchase = json.loads(bought.out)
    assert (purchase["final_price"], purchase["seller_id"]) == (24.99, "alpha")

    status = await bookmesh("status", purchase["request_id"], "-o", "json")
    assert json.loads(status.out) == purchase
    watched = await bookmesh("watch", purchase["request_id"], "-o", "json")
    events = [json.loads(line) for line in watched.out.splitlines()]
    assert events[0]["step"]["name"] == "submitted"
    assert events[-1]["result"] == purchase
    listed = await bookmesh("list", "--book", book, "--status", "purchased", "-o", "json")
    assert [p["request_id"] for p in json.loads(listed.out)] == [purchase["request_id"]]
    late = await bookmesh("cancel", purchase["request_id"])
    assert (late.code, late.out) == (9, "")


async def test_an_offer_is_taken(bookmesh: Bookmesh, fresh: Fresh) -> None:
    asked = await bookmesh("buy", fresh("too-dear"), "--max", "29.99")
    assert asked.code == 3
    assert asked.out.startswith("Best price ($34.99) exceeds your max ($29.99).\nbravo offers it")
    # As it is printed, which says where the mesh is too.
    command = shlex.split(asked.out.rpartition("to take it: bookmesh ")[2])
    taken = await run(sys.executable, "-m", "cli.main", *command)
    assert (taken.code, taken.err) == (0, "")
    assert taken.out.startswith("Bought for 34.99 at bravo")


async def test_an_offer_that_is_over_is_refused_in_a_line(
    mesh: LocalMesh, bookmesh: Bookmesh, fresh: Fresh
) -> None:
    asked = await bookmesh("buy", fresh("too-dear"), "--max", "29.99", "-o", "json")
    request_id = json.loads(asked.out)["request_id"]
    connection = await asyncpg.connect(mesh.dsn)
    try:
        await connection.execute(
            "UPDATE orchestrator.purchase"
            " SET offer = offer || jsonb_build_object('expires_at', now() - interval '1 second') WHERE request_id = $1",
            request_id,
        )
    finally:
        await connection.close()
    late = await bookmesh("accept", request_id)
    assert (late.code, late.out) == (9, "")
    [line] = late.err.splitlines()
    assert line.endswith("ask anew with `bookmesh buy`, for a --max of that price")


@pytest.mark.parametrize(
    ("kind", "card", "code"), [("nowhere", "tok_ok", 4), ("ordinary", "tok_decline", 5)]
)
async def test_a_purchase_that_comes_to_nothing_has_its_exit_code(
    bookmesh: Bookmesh, fresh: Fresh, kind: str, card: str, code: int
) -> None:
    result = await bookmesh("buy", fresh(kind), "--max", "29.99", BOOKMESH_PAYMENT_TOKEN=card)
    assert (result.code, result.err) == (code, "")
    assert len(result.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "start"),
    [
        (("buy", "978-0134685992", "--max", "5"), {}, 2, "Error: book_id: "),
        (("buy", "978-0134685991", "--max", "5.001"), {}, 2, "Error: max_price: "),
        (("list",), {"BOOKMESH_TOKEN": "nonsense"}, 7, "Error: the token is not valid"),
        (("status", "01980000-0000-7000-8000-000000000001"), {}, 9, "Error: there is no purchase"),
    ],
)
async def test_what_is_refused_is_a_line(
    bookmesh: Bookmesh,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    start: str,
) -> None:
    result = await bookmesh(*arguments, **environment)
    assert (result.code, result.out) == (code, "")
    [line] = result.err.splitlines()
    assert line.startswith(start)


async def test_prices_are_compared(bookmesh: Bookmesh, fresh: Fresh) -> None:
    result = await bookmesh("quotes", fresh("ordinary"), "-o", "json")
    assert (result.code, result.err) == (0, "")
    quotes = json.loads(result.out)["quotes"]
    assert [(quote["seller_id"], quote["total"]) for quote in quotes] == [
        ("alpha", 24.99),
        ("bravo", 25.49),
        ("delta", 26.0),
    ]


async def test_the_curl_example_buys(mesh: LocalMesh, fresh: Fresh) -> None:
    result = await run(
        str(EXAMPLES / "buy.sh"),
        fresh("ordinary"),
        "29.99",
        BOOKMESH_URL=mesh.rest_url,
        BOOKMESH_TOKEN=mesh.token(),
    )
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out.splitlines()[-1])["status"] == "purchased"


async def test_the_curl_example_says_what_was_refused(mesh: LocalMesh) -> None:
    result = await run(
        str(EXAMPLES / "buy.sh"),
        "978-0134685992",
        "29.99",
        BOOKMESH_URL=mesh.rest_url,
        BOOKMESH_TOKEN=mesh.token(),
    )
    assert (result.code, result.out) == (1, "")
    assert "wrong check digit" in result.err


async def test_the_python_example_buys(mesh: LocalMesh, fresh: Fresh) -> None:
    where = {"BOOKMESH_ADDRESS": mesh.grpc_address, "BOOKMESH_TOKEN": mesh.token()}
    program = (sys.executable, str(EXAMPLES / "buy.py"))
    assert await run(*program, fresh("ordinary"), "29.99", **where) == Ended(
        0, "bought for 24.99 at alpha\n", ""
    )
    # The offer is taken, as it costs less than a fifth more.
    assert await run(*program, fresh("too-dear"), "29.99", **where) == Ended(
        0, "bought for 34.99 at bravo\n", ""
    )
    usage = await run(*program)
    assert (usage.code, usage.out) == (1, "")
    assert usage.err.startswith("usage: ")


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("go") is None, reason="the example in Go needs Go")
async def test_the_go_example_buys(mesh: LocalMesh, fresh: Fresh) -> None:
    modules = await run("go", "-C", str(EXAMPLES / "go"), "mod", "download")
    if modules.code:
        pytest.skip(f"the modules of the example in Go cannot be had: {modules.err.strip()}")
    built = await run("make", "-s", "-C", str(EXAMPLES / "go"), "build")
    assert built.code == 0, built.err
    result = await run(
        str(EXAMPLES / "go" / "bin" / "buy"),
        fresh("ordinary"),
        "29.99",
        BOOKMESH_ADDRESS=mesh.grpc_address,
        BOOKMESH_TOKEN=mesh.token(),
    )
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1].split() == ["purchased", "24.99", "alpha"]


async def test_ctrl_c_leaves_the_purchase_alone(
    mesh: LocalMesh, bookmesh: Bookmesh, fresh: Fresh
) -> None:
    begun = await bookmesh("buy", fresh("ordinary"), "--max", "29.99", "--no-wait", "-o", "json")
    request_id = json.loads(begun.out)["request_id"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "watch", request_id),
        *("-o", "json", "--data", str(mesh.data.root)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    # It may have come to its end just before.
    assert process.returncode in {0, 130}
    assert b"Traceback" not in err
    ended = await bookmesh("watch", request_id)
    assert ended.code == 0
