"""What the gateway's RPCs of quotes need of the world; as in ``ports``, in the aggregator's messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from bookmesh.aggregator.v1 import aggregator_pb2 as pb


class Quotes(Protocol):
    """The aggregators, as one."""

    def collect(
        self, request: pb.CollectQuotesRequest, wait_s: float
    ) -> AsyncIterator[pb.CollectQuotesResponse]:
        """Give the quotes of a book as they arrive; end with the summary, soon after ``wait_s`` seconds at the latest.

        Raises:
            Unavailable: with ``retry_after_s``, when no aggregator can be reached, or the one that was asked is lost.

        """
        ...
