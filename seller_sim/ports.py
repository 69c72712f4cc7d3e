"""What the use cases need from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seller_sim.domain.account import Record


class Ledger(Protocol):
    """Keeps the records of all sellers over restarts and crashes."""

    def write(self, seller_id: str, records: Sequence[Record]) -> None:
        """Write records of one seller, replacing those of the same kind and key: all of them or none.

        What was written is still there when the process is killed the moment after.
        """
        ...

    def read_all(self) -> Mapping[str, Sequence[Record]]:
        """Give all records, by seller."""
        ...


class Listeners(Protocol):
    """The addresses at which sellers answer."""

    def endpoint_of(self, seller_id: str) -> str:
        """Give the ``host:port`` of a seller, the same whether or not it answers there now."""
        ...

    def shared(self, seller_id: str) -> bool:
        """Say whether a seller shares its address with others."""
        ...

    async def open(self, seller_id: str) -> None:
        """Answer at the address of a seller from now on."""
        ...

    async def refuse(self, seller_id: str) -> None:
        """End all connections to the address of a seller and refuse new ones."""
        ...
