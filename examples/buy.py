"""Buys a book:  .venv/bin/python examples/buy.py 978-0134685991 29.99.

BOOKMESH_ADDRESS        where the gRPC API is; 127.0.0.1:9090
BOOKMESH_TOKEN          your bearer token, such as the one of `bookmesh token`
BOOKMESH_PAYMENT_TOKEN  the payment provider's token for your card; one of the sandbox's
"""

import asyncio
import os
import sys
from decimal import Decimal

from bookmesh_client import BookmeshError, Client, PurchaseStatus


async def buy(token: str, book_id: str, max_price: Decimal) -> None:
    """Buy a book, and take the offer if it costs up to a fifth more."""
    address = os.environ.get("BOOKMESH_ADDRESS", "127.0.0.1:9090")
    async with Client(address, token) as client:
        purchase = await client.buy(
            book_id,
            max_price=max_price,
            payment_token=os.environ.get("BOOKMESH_PAYMENT_TOKEN", "tok_abc123"),
        )
        if (
            purchase.status == PurchaseStatus.price_not_met
            and purchase.offer.price <= float(max_price) * 1.2
        ):
            accepted = await client.accept_offer(purchase.request_id)
            purchase = await client.wait(accepted.request_id)
    if purchase.status == PurchaseStatus.purchased:
        print(f"bought for {purchase.final_price} at {purchase.seller_id}")
    else:
        print(f"{PurchaseStatus.Word.Name(purchase.status)}: {purchase.message}")


if __name__ == "__main__":
    try:
        _, isbn, most = sys.argv
        wish = buy(os.environ["BOOKMESH_TOKEN"], isbn, Decimal(most))
    except (ValueError, ArithmeticError, KeyError):
        sys.exit("usage: BOOKMESH_TOKEN=... buy.py ISBN MAX_PRICE")
    try:
        asyncio.run(wish)
    except BookmeshError as error:
        sys.exit(f"{error.reason}: {error}")
