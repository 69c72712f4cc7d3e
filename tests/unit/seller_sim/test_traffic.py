from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seller_sim.domain.traffic import WINDOW_S, BusyTime, SlidingWindow, Traffic

GAPS = st.lists(st.integers(min_value=0, max_value=40), min_size=1, max_size=60)


def test_a_call_fits_again_60_seconds_after_the_one_that_fills_the_limit() -> None:
    traffic = Traffic()
    assert traffic.admit_call("GetQuote", 0.0, 2) == 0
    assert traffic.admit_call("GetQuote", 10.0, 2) == 0
    assert traffic.admit_call("GetQuote", 15.0, 2) == 45.0
    assert traffic.admit_call("GetQuote", 59.5, 2) == 0.5
    assert traffic.admit_call("GetQuote", 60.0, 2) == 0
    assert traffic.admit_call("GetQuote", 60.0, 2) == 10.0
    assert traffic.calls == {"GetQuote": 6}
    assert traffic.rate_limited == 3


@given(GAPS, st.integers(min_value=1, max_value=5))
def test_no_60_seconds_admit_more_than_the_limit_and_none_is_refused_below_it(
    gaps: list[int], limit: int
) -> None:
    traffic = Traffic()
    now_s = 0.0
    admitted: list[float] = []
    for gap in gaps:
        now_s += gap
        recent = [moment for moment in admitted if moment > now_s - WINDOW_S]
        wait_s = traffic.admit_call("GetQuote", now_s, limit)
        assert (wait_s == 0) == (len(recent) < limit)
        if wait_s == 0:
            admitted.append(now_s)
        else:
            assert wait_s == recent[-limit] + WINDOW_S - now_s


@given(GAPS)
def test_the_peak_is_the_most_arrivals_of_any_60_seconds(gaps: list[int]) -> None:
    traffic = Traffic()
    moments: list[float] = []
    for gap in gaps:
        moments.append((moments[-1] if moments else 0.0) + gap)
        traffic.admit_call("GetQuote", moments[-1], 1)
    peak = max(sum(end - WINDOW_S < moment <= end for moment in moments) for end in moments)
    assert traffic.peak_per_minute == peak


def test_books_count_one_by_one() -> None:
    traffic = Traffic()
    assert traffic.admit_books(3, 0.0, 4) == 0
    assert traffic.admit_books(2, 10.0, 4) == 50.0
    assert traffic.admit_books(1, 10.0, 4) == 0
    assert traffic.admit_books(3, 60.0, 4) == 0


def test_more_books_than_the_limit_never_fit() -> None:
    assert Traffic().admit_books(5, 0.0, 4) == WINDOW_S


def test_without_a_limit_on_books_nothing_is_counted() -> None:
    assert Traffic().admit_books(1_000, 0.0, 0) == 0


def test_time_is_busy_once_however_many_calls_there_are() -> None:
    """Two calls that overlap, a pause that does not count, another call."""
    busy = BusyTime()
    busy.began(10.0)
    busy.began(12.0)
    busy.ended(13.0)
    assert busy.total_s == 0.0
    busy.ended(15.0)
    assert busy.total_s == 5.0
    busy.began(20.0)
    busy.ended(21.0)
    assert busy.total_s == 6.0


def test_a_window_forgets_what_is_60_seconds_old() -> None:
    window = SlidingWindow()
    assert window.add(0.0, 2) == 2
    assert window.add(59.9) == 3
    assert window.sum(60.0) == 1
    assert window.sum(119.9) == 0
