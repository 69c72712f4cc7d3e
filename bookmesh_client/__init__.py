"""Buys books at Bookmesh, from Python.

    async with Client("https://api.bookmesh.example", token=token) as client:
        purchase = await client.buy("978-0134685991", max_price=29.99, payment_token=card)
        if purchase.status == PurchaseStatus.purchased:
            print(purchase.final_price, purchase.seller_id)

The messages are those of ``bookmesh.customer.v1``. How a purchase ends is its ``status``; a call that was refused, or
did not arrive, is a ``BookmeshError``.
"""

from bookmesh.customer.v1.customer_pb2 import (
    BookCondition,
    FailureReason,
    PurchaseRequest,
    PurchaseRequestSummary,
    PurchaseStatus,
)
from bookmesh_client.client import Client
from bookmesh_client.errors import (
    BookmeshError,
    InvalidArgument,
    NotFound,
    NotPossible,
    PaymentRefused,
    TooMany,
    Unauthorized,
    Unavailable,
)

__all__ = [
    "BookCondition",
    "BookmeshError",
    "Client",
    "FailureReason",
    "InvalidArgument",
    "NotFound",
    "NotPossible",
    "PaymentRefused",
    "PurchaseRequest",
    "PurchaseRequestSummary",
    "PurchaseStatus",
    "TooMany",
    "Unauthorized",
    "Unavailable",
]
