"""What Envoy answers by itself on the gRPC listener: the errors of the REST listener, in the form that gRPC has.

An error's message is the same in its details, as gRPC's libraries demand; so it never has Envoy's own words in it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from http import HTTPStatus

from mesh import errors
from mesh.errors import MeshError
from mesh.grpc.errors import status_of

Filter = Mapping[str, object]
"""An access log filter of Envoy, which chooses among its own answers."""


def _because(details: str) -> Filter:
    """Choose what a filter refuses for this; only the details of the answer say what it was."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": f"response.code_details == '{details}'",
            },
        }
    }


def _status_is(status: HTTPStatus) -> Filter:
    value = {"default_value": int(status), "runtime_key": "none"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


JWT_IS_MISSING = _because("jwt_authn_access_denied{Jwt_is_missing}")
JWT_IS_EXPIRED = _because("jwt_authn_access_denied{Jwt_is_expired}")
SCOPE_IS_MISSING = _because("rbac_access_denied_matched_policy[scope]")
_ENCODED: Filter = {"header_filter": {"header": {"name": "grpc-encoding", "present_match": True}}}

_TOKEN_INVALID = errors.Unauthenticated(
    "the token is not valid: it is malformed, or not of the issuer, the audience and the keys that count here",
    reason="TOKEN_INVALID",
)

_REPLIES: tuple[tuple[Filter, MeshError], ...] = (
    (
        JWT_IS_MISSING,
        errors.Unauthenticated(
            "no token: send metadata authorization: Bearer <token>", reason="TOKEN_MISSING"
        ),
    ),
    (
        JWT_IS_EXPIRED,
        errors.Unauthenticated("the token has expired: get a new one", reason="TOKEN_EXPIRED"),
    ),
    (_status_is(HTTPStatus.UNAUTHORIZED), _TOKEN_INVALID),
    (
        SCOPE_IS_MISSING,
        errors.PermissionDenied(
            "the token is not for this: it does not have the scope customer", reason="SCOPE_MISSING"
        ),
    ),
    # So jwt_authn says of a token for another audience, which is no better than none (RFC 6750, 3.1).
    (_status_is(HTTPStatus.FORBIDDEN), _TOKEN_INVALID),
    (
        {"and_filter": {"filters": [_status_is(HTTPStatus.NOT_FOUND), _ENCODED]}},
        errors.Unimplemented(
            "there is no such method here, or the message is compressed: send it with the encoding identity"
        ),
    ),
    (_status_is(HTTPStatus.NOT_FOUND), errors.Unimplemented("there is no such method here")),
    (
        _status_is(HTTPStatus.REQUEST_TIMEOUT),
        errors.DeadlineExceeded("the request did not arrive in time", reason="REQUEST_TIMEOUT"),
    ),
    (
        _status_is(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        errors.InvalidArgument("the message is larger than 65536 bytes", reason="BODY_TOO_LARGE"),
    ),
    (
        _status_is(HTTPStatus.TOO_MANY_REQUESTS),
        # Tokens for the next second are there a second later.
        errors.ResourceExhausted(
            "too many requests at once: send fewer a second",
            reason="RATE_LIMITED",
            retry_after_s=1.0,
        ),
    ),
    (
        # A gateway that breaks off in the midst of its answer is 502 to Envoy, one that is gone 503.
        {
            "or_filter": {
                "filters": [
                    _status_is(HTTPStatus.BAD_GATEWAY),
                    _status_is(HTTPStatus.SERVICE_UNAVAILABLE),
                ]
            }
        },
        errors.Unavailable(
            "no gateway could answer: try again, to buy with the same idempotency-key",
            retry_after_s=1.0,
        ),
    ),
    (
        _status_is(HTTPStatus.GATEWAY_TIMEOUT),
        errors.DeadlineExceeded("the gateway did not answer in time"),
    ),
)


def over_grpc() -> list[dict[str, object]]:
    """Give the mappers of ``local_reply_config``; the first that fits counts."""
    return [_mapper(chosen, error) for chosen, error in _REPLIES]


def _mapper(chosen: Filter, error: MeshError) -> dict[str, object]:
    status = status_of(error)
    headers = {
        # What Envoy makes of an HTTP status is another one here and there.
        "grpc-status": str(status.code),
        "grpc-status-details-bin": base64.b64encode(status.SerializeToString()).decode(),
    }
    return {
        "filter": chosen,
        "body": {"inline_string": error.message},
        "headers_to_add": [
            {
                "header": {"key": key, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for key, value in headers.items()
        ],
    }
