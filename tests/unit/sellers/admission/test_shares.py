from __future__ import annotations

import pytest
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
    assert shares[0].quotes + shares[0].reserve == shares[0].fleet


@pytest.mark.parametrize(("limit", "quotes"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)])
def test_a_seller_that_may_hardly_be_called_keeps_a_call_for_buying(
    limit: int, quotes: int
) -> None:
    assert split(limit, AdmissionSettings(processes=3)).quotes == quotes


def test_a_limit_of_a_hundred_over_three_processes() -> None:
    shares = [split(100, AdmissionSettings(processes=3, process_index=index)) for index in range(3)]
    assert shares == [Shares(80, 64, 16, 12, own, 1) for own in (7, 7, 6)]


def test_no_limit_is_none_for_anybody() -> None:
    shares = split(NO_LIMIT, AdmissionSettings(processes=3))
    assert shares == Shares(NO_LIMIT, NO_LIMIT, 0, NO_LIMIT, NO_LIMIT, NO_LIMIT)


@given(limit=st.integers(1, 5000), processes=st.integers(1, 40), percent=st.integers(0, 100))
def test_browsing_never_has_all_that_quotes_may_use(
    limit: int, processes: int, percent: int
) -> None:
    shares = split(limit, AdmissionSettings(processes=processes, browse_percent=percent))
    assert shares.browse < shares.quotes or shares.browse == 0
    assert (shares.browse > 0) == (percent > 0 and shares.quotes > 1)
    assert shares.own_browse <= shares.own
