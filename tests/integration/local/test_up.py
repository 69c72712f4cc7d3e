"""``bookmesh up`` as a person runs it."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.local.options import HOST, inherited_environment

pytestmark = pytest.mark.timeout(180)

BOOKMESH = (sys.executable, "-m", "cli.main")
CORNER_SHOP = {
    "seller_id": "corner-shop",
    "endpoint": "127.0.0.1:1",
    "credential_reference": "corner-shop",
    "capabilities": {
        "currency_codes": ["USD"],
        "calls_per_minute": 60,
        "min_quote_life": "60s",
        "key_retention": "604800s",
        "supports_get_order": True,
        "contract_versions": ["v1"],
    },
}


@contextmanager
def up(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``bookmesh up`` on free ports; kill it at the end of the block if it still runs."""
    command = [*BOOKMESH, "up", "--data", str(folder), "--sellers", "3"]
    process = subprocess.Popen(
        [*command, "--http-port", "0", "--grpc-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=inherited_environment() | {"PYTHONUNBUFFERED": "1"} | environment,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], last: str) -> str:
    """Read what is printed up to the line with this in it."""
    assert process.stdout is not None
    text = line = ""
    while last not in line:
        line = process.stdout.readline()
        assert line, f"it ended early: {process.communicate()[1]}"
        text += line
    return text


def children_of(folder: Path) -> dict[str, str]:
    """Give the processes that work on a data folder: command lines by process id, without zombies."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in environment + command and b"cli.main" not in command:
            found[process.name] = command.replace(b"\0", b" ").decode()
    return found


def buy_as_printed(printed: str) -> httpx.Response:
    """Send what the printed curl sends, and believe whom it believes."""
    curl = shlex.split(printed[printed.index("curl") :].split("\n\n", maxsplit=1)[0])
    body = json.loads(curl[curl.index("-d") + 1])
    assert body == {
        "book_id": "isbn-978-0134685991",
        "max_price": 29.99,
        "payment_token": "tok_abc123",
    }
    headers = dict(curl[at + 1].split(": ", 1) for at, word in enumerate(curl) if word == "-H")
    roots = curl[curl.index("--cacert") + 1] if "--cacert" in curl else None
    verify = ssl.create_default_context(cafile=roots)
    return httpx.post(
        curl[2], json=body, headers=headers, verify=verify, timeout=30, trust_env=False
    )


def test_it_starts_answers_the_printed_curl_begins_a_restart_and_drains_on_ctrl_c(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    with up(folder) as process:
        printed = read_until(process, "Ctrl-C")
        response = buy_as_printed(printed)
        assert response.status_code == 202, response.text
        assert response.headers["location"] == response.json()["status_url"]

        restart = subprocess.run(
            [*BOOKMESH, "restart", "--data", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (restart.returncode, restart.stderr) == (0, "")
        assert restart.stdout.startswith(f"process {process.pid} restarts its mesh")
        read_until(process, "restarting everything, one after the other")

        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        assert output.splitlines()[-1].endswith("stopped")
    assert children_of(folder) == {}


def sellers(folder: Path, *arguments: str) -> str:
    """Say something about sellers to the mesh on a folder; give what it answers."""
    return subprocess.run(
        [*BOOKMESH, "sellers", *arguments, "--data", str(folder)],
        env=inherited_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def budget_left(folder: Path, seller_id: str) -> int:
    [health] = json.loads(sellers(folder, "health", seller_id, "-o", "json"))
    return int(health.get("budget_left", 0))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_killed_it_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    """With TLS this time, and with a seller whose limit counts on."""
    folder = tmp_path / "data"
    shop = tmp_path / "shop.json"
    shop.write_text(json.dumps(CORNER_SHOP))
    with up(folder) as process:
        read_until(process, "Ctrl-C")
        first = children_of(folder).keys()
        assert len(first) > 7
        sellers(folder, "register", str(shop))
        assert budget_left(folder, "corner-shop") > 0
        process.kill()
    with up(folder, "--tls") as process:
        printed = read_until(process, "Ctrl-C")
        assert (
            "1 of your own may have been called a moment ago: they are left alone for 65 s"
            in printed
        )
        assert budget_left(folder, "corner-shop") == 0
        assert "REST        https://127.0.0.1:" in printed
        response = buy_as_printed(printed)
        assert response.status_code == 202, response.text
        request_id = response.json()["request_id"]
        # The command knows by itself how this mesh is spoken to.
        followed = subprocess.run(
            [*BOOKMESH, "watch", request_id, "--data", str(folder), "-o", "json"],
            env=inherited_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert request_id in followed.stdout, followed.stderr
        second = children_of(folder).keys()
        assert not first & second
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert children_of(folder) == {}


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with up(folder) as process:
        read_until(process, "Ctrl-C")
        process.send_signal(signal.SIGINT)
        read_until(process, "  ")  # it says that it is stopping
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        with up(tmp_path / "data", "--http-port", port) as process:
            _, errors = process.communicate()
    assert process.returncode == 1
    [line] = errors.splitlines()
    assert line.startswith(f"Error: port {port} (HTTP_PORT, for the REST API) is taken")


def test_a_collector_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    with up(tmp_path / "data", OTEL_EXPORTER_OTLP_ENDPOINT="https://collector") as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    [line] = errors.splitlines()
    assert "'https://collector' must be http://host:port" in line


@pytest.mark.parametrize(
    "content",
    ["no: scenario\n", "seed: 1\nsellers:\n  - {id: one, display_name: The only one}\n"],
    ids=["no scenario", "fewer sellers than wanted"],
)
def test_a_child_that_dies_at_the_start_is_named_with_its_log(tmp_path: Path, content: str) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(content)
    folder = tmp_path / "data"
    with up(folder, "--scenario", str(scenario)) as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    first, *excerpt = errors.splitlines()
    assert first.startswith("Error: seller_sim ended with code")
    assert first.endswith(f"the end of {folder}/logs/seller_sim.log:")
    assert str(scenario) in excerpt[-1]
    assert "Traceback" not in errors
    assert children_of(folder) == {}
