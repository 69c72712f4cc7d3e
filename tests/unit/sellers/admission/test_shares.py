from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sellers.admission.model import NO_LIMIT, AdmissionSettings
from sellers.admission.shares import Shares, split


@given(limit=st.integers(1, 5000), processes=st.integers(1, 40))
def test_the_parts_add_up_to_the_limit(limit: int, processes: int) -> None:
    shares = [
        split(limit, AdmissionSettings(processes=processes, process_index=index))
        for index in range(processes)
    ]
    assert shares[0].fleet + sum(share.own for share in shares) == limit
    assert 1 <= shares[0].quotes <= shares[0].fleet


def test_a_limit_of_a_hundred_over_three_processes() -> None:
    shares = [split(100, AdmissionSettings(processes=3, process_index=index)) for index in range(3)]
    assert shares == [Shares(80, 64, 7), Shares(80, 64, 7), Shares(80, 64, 6)]


def test_no_limit_is_none_for_anybody() -> None:
    assert split(NO_LIMIT, AdmissionSettings(processes=3)) == Shares(NO_LIMIT, NO_LIMIT, NO_LIMIT)
