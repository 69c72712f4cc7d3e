"""A purchase, from the orchestrator's contract to the customer's. Pure."""

from __future__ import annotations

from google.type import money_pb2

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2
from customers import sentences
from mesh import convert

_Status = orchestrator_pb2.Purchase.Status
_Reason = orchestrator_pb2.Purchase.FailureReason


def purchase_request(purchase: orchestrator_pb2.Purchase) -> pb.PurchaseRequest:
    """Give what has become of a purchase: only the fields that belong to its status."""
    message = pb.PurchaseRequest(request_id=purchase.request_id, status=status(purchase.status))
    match purchase.status:
        case _Status.STATUS_PURCHASED:
            message.final_price = double(purchase.final_price)
            message.seller_id = purchase.seller_id
            message.confirmation = purchase.confirmation
            if purchase.HasField("refunded"):
                message.refunded = double(purchase.refunded)
        case _Status.STATUS_PRICE_NOT_MET:
            lowest = convert.money_from_proto(purchase.offer.total)
            max_price = convert.money_from_proto(purchase.max_price)
            message.lowest_price = double(purchase.offer.total)
            message.message = sentences.price_not_met(lowest, max_price)
            message.next_action = sentences.RESUBMIT
            message.offer.CopyFrom(
                pb.Offer(
                    price=double(purchase.offer.total),
                    currency_code=lowest.currency,
                    seller_id=purchase.offer.seller_id,
                    expires_at=purchase.offer.expires_at,
                )
            )
        case _Status.STATUS_NOT_AVAILABLE:
            message.message = sentences.NOT_AVAILABLE
        case _Status.STATUS_FAILED:
            word = failure_word(purchase.failure_reason)
            message.reason = pb.FailureReason.Word.Value(word)
            message.message = sentences.FAILURES[word]
        case _Status.STATUS_CANCELLED:
            message.message = sentences.CANCELLED
        case _:
            pass  # pending: nothing more is known
    if purchase.cancel_requested:
        message.cancel_requested = True
    if purchase.accepted_offer_of:
        message.accepted_offer_of = purchase.accepted_offer_of
    if purchase.offer_accepted_by:
        message.offer_accepted_by = purchase.offer_accepted_by
    return message


def double(amount: money_pb2.Money) -> float:
    """Give the double that is nearest to an amount; its shortest decimal form is the amount itself."""
    return float(convert.money_from_proto(amount).decimal())


def status(status: orchestrator_pb2.Purchase.Status.ValueType) -> pb.PurchaseStatus.Word.ValueType:
    """Give the customer's word for a status."""
    return pb.PurchaseStatus.Word.Value(_Status.Name(status).removeprefix("STATUS_").lower())


def failure_word(reason: orchestrator_pb2.Purchase.FailureReason.ValueType) -> str:
    """Give the customer's word for why a purchase failed."""
    return _Reason.Name(reason).removeprefix("FAILURE_REASON_").lower()
