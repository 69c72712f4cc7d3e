from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from mesh import errors
from mesh.errors import FieldViolation, MeshError
from mesh.grpc.errors import DOMAIN, from_rpc, status_of, translated

DETAILS = "grpc-status-details-bin"


def answered(
    code: grpc.StatusCode, message: str = "", trailing: tuple[tuple[str, Any], ...] = ()
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), message)


def sent(error: MeshError) -> grpc.aio.AioRpcError:
    status = status_of(error)
    return answered(
        grpc.StatusCode[error.status], error.message, ((DETAILS, status.SerializeToString()),)
    )


@pytest.mark.parametrize("kind", MeshError.__subclasses__())
def test_every_error_keeps_its_kind_and_details_on_the_way(kind: type[MeshError]) -> None:
    error = kind(
        "that was wrong",
        reason="WRONG",
        metadata={"request_id": "r"},
        fields=(FieldViolation("max_price", "must be greater than 0"),),
        retry_after_s=1.25,
    )
    back = from_rpc(sent(error))
    assert type(back) is kind
    assert vars(back) == vars(error)


def test_an_error_without_details_keeps_its_default_reason() -> None:
    back = from_rpc(sent(errors.NotFound("no such book")))
    assert (back.reason, back.fields, back.retry_after_s) == ("NOT_FOUND", (), None)


def test_details_are_those_of_google_rpc() -> None:
    status = status_of(errors.Unavailable("later", retry_after_s=2))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.domain, info.reason, retry.retry_delay.seconds) == (DOMAIN, "UNAVAILABLE", 2)
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]


def test_a_status_of_no_kind_of_ours_is_internal() -> None:
    assert type(from_rpc(answered(grpc.StatusCode.DATA_LOSS, "gone"))) is errors.Internal


@pytest.mark.parametrize(
    "trailing",
    [
        (),
        (("other", "x"),),
        ((DETAILS, b"\xff\xff\xff"),),
        ((DETAILS, b"\x00" * 70_000),),
        (
            (
                DETAILS,
                status_pb2.Status(
                    details=[
                        any_pb2.Any(
                            type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff"
                        )
                    ]
                ).SerializeToString(),
            ),
        ),
    ],
)
def test_details_that_cannot_be_read_are_left_out(trailing: tuple[tuple[str, Any], ...]) -> None:
    back = from_rpc(answered(grpc.StatusCode.ABORTED, "busy", trailing))
    assert type(back) is errors.Aborted
    assert (back.message, back.reason) == ("busy", "ABORTED")


def test_calls_made_inside_translated_raise_our_errors() -> None:
    with pytest.raises(errors.NotFound, match="no such book"), translated():
        raise sent(errors.NotFound("no such book"))
