"""Ports: remembered, never shared between meshes, and a taken one is named."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from deploy.local.options import HOST
from deploy.local.ports import OURS, Ports, any_free, demand, is_free
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock
from seller_sim.adapters.listeners import PORTS

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def listener(port: int = 0) -> socket.socket:
    server = socket.create_server((HOST, port))
    server.listen()
    return server


def test_ports_are_given_again(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with Ports(file) as ports:
        first = [ports.take(name) for name in ("a", "b")]
        ports.remember()
    with Ports(file) as ports:
        assert [ports.take(name) for name in ("a", "b")] == first


def test_a_chosen_port_is_remembered_too(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with Ports(file) as ports:
        assert ports.chosen("http", 8080) == 8080
        ports.remember()
    assert json.loads(file.read_text()) == {"http": 8080}


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with Ports(file) as ports:
        first = ports.take("a")
        ports.remember()
    with listener(first), Ports(file) as ports:
        assert ports.take("a") != first


def test_two_meshes_never_have_the_same_port_even_before_they_listen(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with Ports(file) as ours:
        first = ours.take("a")
        ours.remember()
        with Ports(file) as theirs:
            assert theirs.take("a") != first


def test_no_simulated_seller_takes_what_a_service_will_listen_on() -> None:
    assert not set(OURS) & set(PORTS)


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="only Linux says which ports it gives by itself")
def test_no_connection_is_given_a_port_before_its_service_listens(tmp_path: Path) -> None:
    first, last = map(int, EPHEMERAL.read_text().split())
    with Ports(tmp_path / "ports.json") as ports:
        given = [ports.take(str(number)) for number in range(50)]
    assert [port for port in given if first <= port <= last] == []


@pytest.mark.parametrize("content", ["", "[1]", '{"a": "x"}', '{"a": 70000}', '{"a": -1}'])
def test_a_spoilt_memory_is_forgotten(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(content)
    with Ports(file) as ports:
        assert is_free(ports.take("a"))


async def test_a_taken_port_is_named_with_a_way_out() -> None:
    with listener() as server:
        port = server.getsockname()[1]
        with pytest.raises(MeshProblem) as problem:
            await demand(port, "HTTP_PORT", "the REST API", SystemClock())
    message = str(problem.value)
    assert message.startswith(f"port {port} (HTTP_PORT, for the REST API) is taken")
    suggestion = int(message.rsplit("HTTP_PORT=", 1)[1])
    assert is_free(suggestion)
    assert len(message.splitlines()) == 1


async def test_a_free_port_is_fine() -> None:
    await demand(any_free(), "HTTP_PORT", "the REST API", SystemClock())
