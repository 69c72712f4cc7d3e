"""The local mesh as a library: all of it runs, and what is killed comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio

from bookmesh.customer.v1 import customer_pb2, customer_pb2_grpc
from deploy.local import edge
from deploy.local import mesh as mesh_module
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions
from deploy.local.ports import is_free
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock
from sellers.admission.valkey import FleetUnavailable

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SELLERS = 3


def options(folder: Path) -> MeshOptions:
    return MeshOptions(data=folder, http_port=0, grpc_port=0, sellers=SELLERS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMesh]:
    async with LocalMesh(options(tmp_path_factory.mktemp("mesh"))) as mesh:
        yield mesh


async def answers(mesh: LocalMesh) -> bool:
    """Say whether a customer is answered over REST."""
    headers = {"authorization": f"Bearer {mesh.token()}"}
    async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as client:
        try:
            response = await client.get(f"{mesh.rest_url}/api/v1/purchase-requests")
        except httpx.TransportError:
            return False
    return response.status_code == httpx.codes.OK


async def test_customers_are_answered_over_rest_and_grpc(mesh: LocalMesh) -> None:
    assert mesh.sellers == SELLERS
    assert await answers(mesh)
    async with grpc.aio.insecure_channel(mesh.grpc_address) as channel:
        listed = await customer_pb2_grpc.PurchaseServiceStub(channel).ListPurchaseRequests(
            customer_pb2.ListPurchaseRequestsRequest(),
            metadata=(("authorization", f"Bearer {mesh.token('bob')}"),),
        )
    assert listed == customer_pb2.ListPurchaseRequestsResponse()


@pytest.mark.parametrize(
    "name",
    [
        "gateway-1",
        "orchestrator-1",
        "aggregator-1",
        "seller_sim",
        "envoy",
        "valkey",
        "postgres",
    ],
)
async def test_what_is_killed_comes_back_at_its_address(mesh: LocalMesh, name: str) -> None:
    before = mesh.pids()[name]
    mesh.kill(name)
    await mesh.wait_healthy(name)
    assert mesh.pids()[name] != before
    for _ in range(200):
        if await answers(mesh):
            return
        await asyncio.sleep(0.05)
    pytest.fail("customers are not answered any more")


async def test_one_replica_of_each_service_may_be_gone_without_customers_noticing(
    mesh: LocalMesh,
) -> None:
    for name in ("gateway-2", "orchestrator-2"):
        await mesh.wait_healthy()
        # Nor does the edge still take the other one for gone.
        await edge.wait_whole(mesh.edge_admin, SystemClock())
        mesh.kill(name)
        for _ in range(10):
            assert await answers(mesh)


async def test_a_second_mesh_needs_a_folder_of_its_own(mesh: LocalMesh, tmp_path: Path) -> None:
    with pytest.raises(MeshProblem, match=r"another mesh .* runs on"):
        async with LocalMesh(options(mesh.data.root)):
            pass
    async with LocalMesh(options(tmp_path / "other")) as other:
        for one in (other, mesh):
            await edge.wait_whole(one.edge_admin, SystemClock())
            assert await answers(one)
        pids = other.pids()
    assert len(pids) == len(mesh.pids())
    assert other.pids() == {}
    assert is_free(int(other.rest_url.rsplit(":", 1)[1]))


async def test_a_valkey_that_does_not_do_as_it_is_told_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def deaf(*_: object, **__: object) -> AsyncIterator[DeafLedger]:
        yield DeafLedger()

    class DeafLedger:
        async def declare_quiet(self) -> None:
            raise FleetUnavailable("no answer in 5.0 s")

    monkeypatch.setattr(mesh_module, "valkey_ledger", deaf)
    with pytest.raises(
        MeshProblem, match=r"^valkey at .* \(no answer in 5\.0 s\): look into .*valkey\.log$"
    ):
        async with LocalMesh(options(tmp_path)):
            pass
