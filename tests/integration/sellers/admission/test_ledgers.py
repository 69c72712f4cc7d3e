"""What a ledger does, by the scripts and by their twin."""

from __future__ import annotations

import pytest

from sellers.admission.ledger import (
    NEVER_MS,
    Code,
    Ending,
    Ledger,
    Report,
    Request,
    Standing,
    Verdict,
)
from tests.fakes.ledgers import AnyLedger, LuaLedger

START = 1_700_000_000_000
MANY = 2**31 - 1


class Desk:
    """Asks one ledger, about one seller, at the present moment."""

    def __init__(self, ledger: AnyLedger) -> None:
        self.ledger = ledger
        self.now_ms = START
        ledger.declare_quiet(START)

    def ask(
        self, cap: int = MANY, *, seller: str = "seller", books: int = 0, books_cap: int = MANY,
        concurrency: int = MANY, hold_ms: int = 3250, past_breaker: bool = False, reserve: int = 0,
        reserved: bool = False,
    ) -> Verdict:  # fmt: skip
        request = Request(
            seller, cap, books, books_cap, concurrency, hold_ms, past_breaker, reserve, reserved
        )
        return self.ledger.admit(self.now_ms, [request])[0]

    def end(
        self,
        verdict: Verdict,
        ending: Ending = Ending.SUCCESS,
        *,
        books: int = 0,
        over: bool = True,
    ) -> None:
        assert verdict.code == Code.ALLOWED
        ends_second = verdict.ends_second if over else 0
        report = Report("seller", ends_second, books, verdict.probe, ending)
        self.ledger.report(self.now_ms, [report])

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.end(self.ask(), Ending.FAILURE)

    def leave_alone(self, for_ms: int) -> None:
        report = Report("seller", 0, 0, 0, Ending.LEAVE_ALONE, for_ms)
        self.ledger.report(self.now_ms, [report])

    def keeps(self, seller: str = "seller") -> bool:
        if isinstance(self.ledger, LuaLedger):
            return self.ledger.keeps(seller)
        assert isinstance(self.ledger, Ledger)
        return seller in self.ledger._accounts

    def standing(self) -> Standing:
        return self.ledger.standings(self.now_ms, ["seller"])[0]


@pytest.fixture
def desk(ledger: AnyLedger) -> Desk:
    return Desk(ledger)


def test_as_many_calls_as_the_limit_and_no_more(desk: Desk) -> None:
    codes = [desk.ask(3).code for _ in range(4)]
    assert codes == [Code.ALLOWED] * 3 + [Code.NO_BUDGET]


def test_one_round_trip_serves_many_sellers_and_counts_in_order(desk: Desk) -> None:
    ask = [
        Request(seller, 1, 0, MANY, MANY, 1000, past_breaker=False) for seller in ("a", "b", "a")
    ]
    verdicts = desk.ledger.admit(START, ask)
    assert [verdict.code for verdict in verdicts] == [
        Code.ALLOWED,
        Code.ALLOWED,
        Code.NO_BUDGET,
    ]
    assert desk.ledger.admit(START, []) == []


def test_a_slot_is_free_again_a_minute_after_the_second_in_which_its_call_ended(desk: Desk) -> None:
    verdict = desk.ask(1)
    desk.now_ms += 2500
    desk.end(verdict)
    desk.now_ms = START + 3000 + 60_000 - 1
    assert desk.ask(1) == Verdict(Code.NO_BUDGET, 1, 1, 0, 0, 0, 0)
    desk.now_ms += 1
    assert desk.ask(1).code == Code.ALLOWED


def test_a_call_that_nobody_reports_ends_when_its_time_is_over(desk: Desk) -> None:
    assert desk.ask(1, hold_ms=3250).ends_second == START // 1000 + 3
    desk.now_ms += 3999
    assert desk.standing().in_flight == 1
    desk.now_ms += 1
    assert desk.standing().in_flight == 0
    desk.now_ms = START + 4000 + 60_000 - 1
    assert desk.ask(1).code == Code.NO_BUDGET
    desk.now_ms += 1
    assert desk.ask(1).code == Code.ALLOWED


def test_a_report_that_comes_after_that_changes_nothing_but_the_judgement(desk: Desk) -> None:
    verdict = desk.ask(2)
    desk.now_ms += 5000
    desk.end(verdict, Ending.FAILURE)
    assert desk.standing() == Standing(-1, 0, 1, 0, 0, 1, 1)
    desk.now_ms += 1
    desk.end(verdict, Ending.NOT_SENT)
    assert desk.standing().calls_used == 1


def test_a_call_that_was_not_sent_gives_its_slot_and_its_books_back(desk: Desk) -> None:
    desk.end(desk.ask(1, books=7), Ending.NOT_SENT, books=7)
    assert desk.standing() == Standing(-1, 0, 0, 0, 0, 0, 0)
    assert desk.ask(1).code == Code.ALLOWED


def test_silence_is_judged_while_the_call_still_counts_as_under_way(desk: Desk) -> None:
    desk.end(desk.ask(), Ending.FAILURE, over=False)
    assert desk.standing() == Standing(-1, 0, 1, 0, 1, 1, 1)


def test_a_seller_that_is_not_called_any_more_is_as_one_that_never_was(desk: Desk) -> None:
    for _ in range(10):
        desk.end(desk.ask(), Ending.FAILURE)
    desk.now_ms += 30_000
    desk.end(desk.ask(), Ending.SUCCESS)
    desk.now_ms += 1000
    assert desk.standing().calls_used == 11
    desk.now_ms += 61_000
    assert desk.standing() == Standing(-1, 0, 0, 0, 0, 0, 0)
    assert not desk.keeps()
    assert [desk.ask(2).code for _ in range(3)] == [Code.ALLOWED, Code.ALLOWED, Code.NO_BUDGET]
    assert desk.keeps()


def test_looking_at_sellers_keeps_nothing_of_them(desk: Desk) -> None:
    [standing] = desk.ledger.standings(START, ["another"])
    assert standing == Standing(-1, 0, 0, 0, 0, 0, 0)
    assert not desk.keeps("another")


def test_books_have_a_limit_of_their_own(desk: Desk) -> None:
    desk.end(desk.ask(books=30, books_cap=40), books=30)
    desk.now_ms += 2000
    desk.end(desk.ask(books=10, books_cap=40), books=10)
    assert desk.ask(books=1, books_cap=40).after_ms == 59_000
    assert desk.ask(books=31, books_cap=40).after_ms == 61_000
    assert desk.ask(books=41, books_cap=40).after_ms == NEVER_MS
    assert desk.ask(books=0, books_cap=40).code == Code.ALLOWED


def test_calls_out_of_a_reserve_do_not_count_up_to_its_size(desk: Desk) -> None:
    for _ in range(3):
        assert desk.ask(5, reserved=True).calls_used <= 3
    verdicts = [desk.ask(3, reserve=2) for _ in range(3)]
    assert [verdict.code for verdict in verdicts] == [Code.ALLOWED] * 2 + [Code.NO_BUDGET]
    assert [verdict.calls_used for verdict in verdicts] == [2, 3, 3]
    assert desk.ask(5, reserved=True).code == Code.NO_BUDGET
    assert desk.standing().calls_used == 5


def test_a_call_counts_as_one_out_of_a_reserve_no_longer_than_its_slot_is_used(desk: Desk) -> None:
    desk.now_ms = START - START % 5000 + 4999
    desk.end(desk.ask(1, reserved=True))
    desk.now_ms += 2
    desk.end(desk.ask(2, reserved=True))
    desk.now_ms = START - START % 5000 + 60_000 - 1
    assert desk.ask(1, reserve=2).code == Code.ALLOWED
    desk.now_ms += 1
    verdict = desk.ask(2, reserve=2)
    assert (verdict.code, verdict.calls_used) == (Code.NO_BUDGET, 2), "one of the two counts again"


def test_a_reserve_that_was_given_back_makes_no_room(desk: Desk) -> None:
    for _ in range(2):
        desk.end(desk.ask(reserved=True), Ending.NOT_SENT)
    verdict = desk.ask(1, reserve=2)
    assert (verdict.code, verdict.calls_used) == (Code.ALLOWED, 1)


def test_the_wait_reaches_to_when_enough_is_free(desk: Desk) -> None:
    for _ in range(3):
        desk.end(desk.ask())
        desk.now_ms += 5000
    assert desk.ask(3).after_ms == 61_000 - 15_000
    assert desk.ask(1).after_ms == 61_000 - 5_000
    assert desk.ask(0).after_ms == NEVER_MS


def test_what_is_under_way_frees_nothing_within_a_minute(desk: Desk) -> None:
    desk.ask(1)
    assert desk.ask(1).after_ms == 60_000


def test_only_so_many_calls_at_once(desk: Desk) -> None:
    first = desk.ask(concurrency=2)
    desk.ask(concurrency=2)
    assert desk.ask(concurrency=2) == Verdict(Code.CONCURRENCY, 0, 2, 0, 2, 0, 0)
    desk.end(first)
    assert desk.ask(concurrency=2).code == Code.ALLOWED


def test_ten_calls_half_of_them_failed_open_the_breaker(desk: Desk) -> None:
    for ending in [Ending.SUCCESS, Ending.FAILURE] * 4 + [Ending.SUCCESS]:
        desk.end(desk.ask(), ending)
    assert desk.ask().code == Code.ALLOWED
    desk.fail(1)
    assert desk.ask().code == Code.CIRCUIT_OPEN
    assert desk.ask().after_ms == 30_000
    assert desk.standing()[:2] == (0, 30_000)


def test_nine_failures_do_not(desk: Desk) -> None:
    desk.fail(9)
    assert desk.ask().code == Code.ALLOWED


def test_failures_of_more_than_a_minute_ago_do_not_count(desk: Desk) -> None:
    desk.fail(9)
    desk.now_ms += 61_000
    desk.fail(9)
    assert desk.ask().code == Code.ALLOWED
    assert desk.standing()[5:7] == (9, 9)


def test_of_more_calls_fewer_than_half_may_fail(desk: Desk) -> None:
    for _ in range(12):
        desk.end(desk.ask())
        desk.now_ms += 900
    desk.fail(11)
    assert desk.ask().code == Code.ALLOWED
    desk.fail(1)
    assert desk.ask().code == Code.CIRCUIT_OPEN


def opened(desk: Desk) -> None:
    desk.fail(10)
    desk.now_ms += 30_000


def test_thirty_seconds_later_there_is_one_probe(desk: Desk) -> None:
    desk.fail(10)
    desk.now_ms += 29_999
    assert desk.ask().code == Code.CIRCUIT_OPEN
    desk.now_ms += 1
    probe = desk.ask()
    assert (probe.code, probe.probe) == (Code.ALLOWED, 1)
    assert desk.ask() == Verdict(Code.CIRCUIT_OPEN, 3250, 11, 0, 1, 0, 0)


def test_its_success_closes_the_breaker_and_forgives(desk: Desk) -> None:
    desk.fail(5)
    desk.now_ms += 2000
    desk.fail(5)
    desk.now_ms += 30_000
    desk.end(desk.ask())
    assert desk.standing() == Standing(-1, 0, 11, 0, 0, 0, 0)
    desk.fail(9)
    assert desk.ask().code == Code.ALLOWED
    desk.now_ms += 60_000
    assert desk.standing()[5:7] == (9, 9)
    desk.now_ms += 1000
    assert desk.standing()[5:7] == (0, 0)


def test_its_failure_keeps_it_open_for_as_long_again(desk: Desk) -> None:
    opened(desk)
    desk.end(desk.ask(), Ending.FAILURE)
    assert desk.ask().after_ms == 30_000
    assert desk.standing()[:2] == (30_000, 30_000)
    desk.now_ms += 30_000
    assert desk.ask().probe == 2


def test_calls_that_are_excused_use_up_slots_and_are_not_counted_against_the_seller(
    desk: Desk,
) -> None:
    for _ in range(20):
        desk.end(desk.ask(20), Ending.EXCUSED)
    standing = desk.standing()
    assert (standing.judged, standing.in_flight, standing.open_for_ms) == (0, 0, -1)
    assert desk.ask(20).code == Code.NO_BUDGET


def test_a_probe_that_is_excused_lets_another_go(desk: Desk) -> None:
    desk.fail(10)
    desk.now_ms += 30_000
    desk.end(desk.ask(), Ending.EXCUSED)
    assert desk.standing().open_for_ms == 30_000
    assert desk.ask().probe == 2


def test_a_probe_that_was_not_sent_lets_another_go(desk: Desk) -> None:
    opened(desk)
    desk.end(desk.ask(), Ending.NOT_SENT)
    assert desk.ask().probe == 2


def test_a_probe_whose_process_died_lets_another_go_when_its_time_is_over(desk: Desk) -> None:
    opened(desk)
    desk.ask(hold_ms=2250)
    desk.now_ms += 2249
    assert desk.ask().code == Code.CIRCUIT_OPEN
    desk.now_ms += 1
    assert desk.ask().probe == 2


def test_calls_from_before_do_not_close_it(desk: Desk) -> None:
    before = desk.ask(hold_ms=5000)
    desk.fail(10)
    desk.end(before)
    assert desk.ask().code == Code.CIRCUIT_OPEN


def test_an_old_probe_decides_nothing_once_there_is_a_new_one(desk: Desk) -> None:
    opened(desk)
    old = desk.ask(hold_ms=1000)
    desk.now_ms += 1000
    desk.ask()
    desk.end(old, over=False)
    assert desk.standing().open_for_ms == 31_000


def test_a_resolving_call_goes_past_an_open_breaker_and_is_its_probe_when_one_is_due(
    desk: Desk,
) -> None:
    desk.fail(10)
    assert desk.ask(past_breaker=True)[-1] == 0
    desk.now_ms += 30_000
    assert desk.ask(past_breaker=True).probe == 1
    assert desk.ask(past_breaker=True).probe == 0
    assert desk.ask().code == Code.CIRCUIT_OPEN


def test_a_ledger_without_memory_grants_nothing_for_the_warm_up(ledger: AnyLedger) -> None:
    ask = [Request("seller", 1, 0, MANY, MANY, 1000, past_breaker=False)]
    assert ledger.admit(START, ask)[0][:2] == (Code.WARMING_UP, 65_001)
    assert ledger.admit(START + 65_000, ask)[0][:2] == (Code.WARMING_UP, 1)
    assert ledger.admit(START + 65_001, ask)[0].code == Code.ALLOWED


def test_time_that_goes_back_stands_still(desk: Desk) -> None:
    desk.end(desk.ask(1))
    desk.now_ms += 60_000
    assert desk.ask(1).after_ms == 1000
    desk.now_ms -= 30_000
    assert desk.ask(1).after_ms == 1000
    desk.now_ms += 31_000
    assert desk.ask(1).code == Code.ALLOWED


def test_time_that_goes_back_by_more_than_the_warm_up_begins_anew(desk: Desk) -> None:
    desk.fail(10)
    desk.now_ms -= 65_001
    assert desk.ask().code == Code.WARMING_UP
    desk.now_ms += 65_001
    assert desk.ask(1).code == Code.ALLOWED


def test_a_report_from_before_a_new_beginning_is_of_no_account(desk: Desk) -> None:
    verdict = desk.ask()
    desk.ledger.declare_quiet(START + 1)
    desk.end(verdict, Ending.NOT_SENT)
    assert desk.standing() == Standing(-1, 0, 0, 0, 0, 0, 0)


def test_a_seller_that_wants_to_be_left_alone_is(desk: Desk) -> None:
    desk.leave_alone(30_000)
    desk.now_ms += 10_000
    # It does not change its mind for the shorter.
    desk.leave_alone(5_000)
    assert desk.ask() == Verdict(Code.LEFT_ALONE, 20_000, 0, 0, 0, 0, 0)
    assert desk.ask(seller="other").code == Code.ALLOWED
    assert desk.ask(past_breaker=True).code == Code.ALLOWED
    desk.now_ms += 20_000
    assert desk.ask().code == Code.ALLOWED


def test_that_blames_nobody_and_is_not_forgotten_while_it_lasts(desk: Desk) -> None:
    desk.leave_alone(100_000)
    assert desk.standing() == Standing(-1, 0, 0, 0, 0, 0, 0, 0, 100_000)
    desk.now_ms += 99_999
    assert desk.standing() == Standing(-1, 0, 0, 0, 0, 0, 0, 0, 1)
    assert desk.ask().code == Code.LEFT_ALONE
    desk.now_ms += 1
    assert desk.standing() == Standing(-1, 0, 0, 0, 0, 0, 0)
    assert not desk.keeps()


def test_the_probe_of_a_breaker_waits_for_it(desk: Desk) -> None:
    desk.fail(10)
    desk.leave_alone(60_000)
    desk.now_ms += 30_000
    assert desk.ask().code == Code.LEFT_ALONE
    desk.now_ms += 30_000
    assert desk.ask().probe == 1
