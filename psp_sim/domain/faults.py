"""Faults that the simulator was told to make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Operation(StrEnum):
    """What a caller asks for."""

    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    CANCEL = "cancel"
    REFUND = "refund"
    RETRIEVE = "retrieve"
    LIST = "list"
    LIST_REFUNDS = "list_refunds"
    RETRIEVE_EVENT = "retrieve_event"


class FaultKind(StrEnum):
    """What goes wrong."""

    CUT_BEFORE = "cut_before"
    """Nothing is done, and the connection is cut."""
    CUT_AFTER = "cut_after"
    """It is done, and the connection is cut instead of an answer. The answer is kept."""
    ERROR_BEFORE = "error_before"
    """Nothing is done; 500, which is kept."""
    ERROR_AFTER = "error_after"
    """It is done; 500, which is kept."""
    DELAY_BEFORE = "delay_before"
    """It is done after ``delay_s``; until then its key is in use."""
    DELAY_AFTER = "delay_after"
    """It is done, and answered after ``delay_s``."""
    UNAVAILABLE = "unavailable"
    """Nothing is done; 503, which is not kept."""
    RATE_LIMITED = "rate_limited"
    """Nothing is done; 429, which is not kept."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault for the next ``times`` calls of an operation, or of one key only."""

    operation: Operation
    kind: FaultKind
    times: int = 1
    delay_s: float = 0.0
    key: str | None = None


class Faults:
    """Those to come."""

    def __init__(self) -> None:
        """Begin without any."""
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Plan a fault, after those planned before."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Forget all that are planned."""
        self._faults.clear()

    def take(self, operation: Operation, key: str | None) -> Fault | None:
        """Give the fault of a call that is beginning, and count it; None when it is to go well."""
        for index, fault in enumerate(self._faults):
            if fault.operation is operation and fault.key in {None, key}:
                if fault.times > 1:
                    self._faults[index] = replace(fault, times=fault.times - 1)
                else:
                    del self._faults[index]
                return fault
        return None
