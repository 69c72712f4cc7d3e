"""TLS for customers, who know the edge by its certificate; and what browsers are told with every answer."""

from __future__ import annotations

import asyncio
import ssl
import warnings

import grpc
import httpx
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bookmesh.customer.v1 import customer_pb2, customer_pb2_grpc
from deploy.local.certificates import issue
from deploy.local.data import CUSTOMERS
from mesh import errors
from mesh.clock import SystemClock
from mesh.grpc.errors import translated
from tests.e2e.waiting import eventually
from tests.integration.envoy.conftest import PATH, Edge, MakeEdge
from tests.integration.envoy.test_rest import BODY

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOWN_WITHIN_S = 20.0
TLS_1_1, TLS_1_2, TLS_1_3 = (
    ssl.TLSVersion.TLSv1_1,
    ssl.TLSVersion.TLSv1_2,
    ssl.TLSVersion.TLSv1_3,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(make_edge: MakeEdge) -> Edge:
    """Give an edge that speaks TLS with customers."""
    return await make_edge(tls_for_customers=True)


def believing(edge: Edge) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=edge.data.authority)


def speaking(edge: Edge, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Give a context of one version alone, however old."""
    context = believing(edge)
    # Else the client itself refuses what is old.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
async def test_a_purchase_goes_over_tls(secured: Edge, version: ssl.TLSVersion) -> None:
    async with secured.client(verify=speaking(secured, version)) as client:
        response = await client.post(PATH, json=BODY)
    assert (response.status_code, response.json()["request_id"]) == (202, "r1")


@pytest.mark.parametrize("door", ["rest", "grpc"])
async def test_older_versions_are_refused(secured: Edge, door: str) -> None:
    address = secured.grpc_address if door == "grpc" else secured.rest_url.partition("//")[2]
    host, _, port = address.rpartition(":")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await asyncio.open_connection(host, int(port), ssl=speaking(secured, TLS_1_1))


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"]], ids=["h2", "http/1.1"])
async def test_the_best_http_is_chosen_that_both_speak(secured: Edge, offered: list[str]) -> None:
    host, _, port = secured.rest_url.partition("//")[2].rpartition(":")
    context = believing(secured)
    context.set_alpn_protocols(offered)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == offered[0]
    writer.close()
    await writer.wait_closed()


async def test_a_call_goes_over_tls(secured: Edge) -> None:
    roots = grpc.ssl_channel_credentials(secured.data.authority.read_bytes())
    async with grpc.aio.secure_channel(secured.grpc_address, roots) as channel:
        answer = await _get(secured, channel)
    assert answer.request_id == "r1"


async def test_who_does_not_know_the_authority_is_warned_by_both_doors(secured: Edge) -> None:
    async with secured.client(verify=ssl.create_default_context()) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(f"{PATH}/r1")
    strangers = grpc.ssl_channel_credentials(secured.data.certificate("gateway").read_bytes())
    async with grpc.aio.secure_channel(secured.grpc_address, strangers) as channel:
        with pytest.raises(errors.Unavailable), translated():
            await _get(secured, channel)


async def test_nothing_is_answered_in_plain_text(secured: Edge) -> None:
    plain = httpx.URL(secured.rest_url).copy_with(scheme="http")
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(plain)
    async with grpc.aio.insecure_channel(secured.grpc_address) as channel:
        with pytest.raises(errors.Unavailable), translated():
            await _get(secured, channel)


async def test_what_customers_are_shown_lets_nobody_in_anywhere(secured: Edge) -> None:
    """It has no name of the mesh, and is not for clients."""
    shown = x509.load_pem_x509_certificate(secured.data.certificate(CUSTOMERS).read_bytes())
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    usage = shown.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


async def test_a_new_certificate_is_shown_without_a_restart(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls_for_customers=True)
    host, _, port = edge.rest_url.partition("//")[2].rpartition(":")

    async def shown() -> bool | None:
        """Whether it is what stands in the file."""
        _, writer = await asyncio.open_connection(host, int(port), ssl=believing(edge))
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        kept = x509.load_pem_x509_certificate(edge.data.certificate(CUSTOMERS).read_bytes())
        return certificate == kept.public_bytes(Encoding.DER) or None

    assert await shown()
    issue(edge.data, CUSTOMERS, SystemClock().now())
    await eventually(shown, SHOWN_WITHIN_S)


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_browsers_are_told_with_every_answer_how_to_treat_it(
    envoy: Edge, secured: Edge, kind: str
) -> None:
    edge = secured if kind == "tls" else envoy
    edge.go_on.set()
    async with edge.client(verify=believing(edge)) as client:
        answers = [
            await client.get(f"{PATH}/r1"),
            await client.get(f"{PATH}/r1:watch"),
            await client.get(f"{PATH}/r1", headers={"authorization": ""}),
            await client.get("/nothing-here"),
            await client.delete(PATH),
            await client.post(PATH, content=b"{", headers={"content-type": "application/json"}),
            await client.post(PATH, json={"book_id": "b" * 70_000}),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 404, 405, 400, 413]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers.get("strict-transport-security") == (
            "max-age=31536000" if kind == "tls" else None
        )


async def _get(edge: Edge, channel: grpc.aio.Channel) -> customer_pb2.PurchaseRequest:
    return await customer_pb2_grpc.PurchaseServiceStub(channel).GetPurchaseRequest(
        customer_pb2.GetPurchaseRequestRequest(request_id="r1"),
        metadata=(("authorization", f"Bearer {edge.token()}"),),
        timeout=5,
    )
