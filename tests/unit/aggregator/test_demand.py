"""Who wants much beside the others."""

from __future__ import annotations

from aggregator.domain.demand import Demand


def test_a_few_collections_are_not_much_though_they_are_all() -> None:
    demand = Demand()
    for _ in range(5):
        demand.note("alice", 0.0)
    assert not demand.is_much("alice", 0.0)
    assert not demand.uneven
    demand.note("alice", 0.0)
    assert demand.is_much("alice", 0.0)
    assert demand.uneven


def test_many_collections_are_not_much_among_many_more() -> None:
    demand = Demand()
    for number in range(1000):
        demand.note(f"customer-{number % 50}", 0.0)
    assert not any(demand.is_much(f"customer-{number}", 0.0) for number in range(50))
    for _ in range(10):
        demand.note("customer-0", 0.0)
    assert demand.is_much("customer-0", 0.0)


def test_it_is_forgotten() -> None:
    demand = Demand()
    for _ in range(20):
        demand.note("alice", 0.0)
    assert demand.is_much("alice", 59.0)
    assert not demand.is_much("alice", 61.0)
    assert not demand.uneven


def test_those_without_a_name_do_not_want_much() -> None:
    demand = Demand()
    for _ in range(1000):
        demand.note("", 0.0)
    assert not demand.is_much("", 0.0)


def test_however_many_customers_there_are_few_are_watched() -> None:
    demand = Demand()
    for number in range(20_000):
        for _ in range(6):
            demand.note(str(number), 0.0)
    assert len(demand._wanted) == len(demand._much) == 10_000
    assert not demand.is_much("0", 0.0)
