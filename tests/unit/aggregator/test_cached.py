"""How long answers are good, how they are packed, and which ones a process remembers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.domain.cached import CacheSettings, KnownAnswers, good_for_s, keep
from aggregator.domain.collection import Answer, MissReason, Question, Skipped
from aggregator.domain.packed import frames, good, is_answer, pack, split, unpack, with_good
from mesh.money import Money
from sellers.model import (
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    QuoteOutcome,
    Unavailable,
    UnavailableReason,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUESTION = Question("9780134685991", "KWD", frozenset(Condition))
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=128)
MONEY = st.integers(0, 100_000_000).map(lambda minor: Money("KWD", minor))
QUOTES = st.builds(
    Quote,
    quote_id=PRINTABLE,
    price=MONEY,
    shipping=MONEY,
    total=MONEY,
    condition=st.sampled_from(Condition),
    quantity=st.integers(1, 2**31 - 1),
    expires_at=st.datetimes(
        datetime(2025, 1, 1),  # noqa: DTZ001  hypothesis adds the zone
        datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
)
OUTCOMES = st.one_of(
    QUOTES,
    st.builds(Unavailable, st.sampled_from(UnavailableReason)),
    st.builds(Skipped, st.sampled_from(MissReason)),
    st.builds(
        CallFailed,
        kind=st.sampled_from(FailureKind),
        definitely_not_done=st.booleans(),
        detail=PRINTABLE,
        retry_after_s=st.none() | st.floats(0, 3600),
    ),
)


def quote(life_s: float) -> Quote:
    amount = Money("USD", 2499)
    expires_at = NOW + timedelta(seconds=life_s)
    return Quote("q-1", amount, amount, amount, Condition.NEW, 3, expires_at)


NO = Unavailable(UnavailableReason.OUT_OF_STOCK)
FAILED = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (quote(3600), 60),
        (quote(70), 60),
        (quote(69), 59),
        (quote(12), 2),
        (quote(11), 1),
        (quote(10.5), 1),
        (quote(5), 1),
        (quote(0.5), 0.5),
        (quote(-5), 0),
        (NO, 60),
        (FAILED, 1),
        (CallFailed(FailureKind.NOT_UNDERSTOOD, definitely_not_done=True, detail=""), 60),
        (Skipped(MissReason.CIRCUIT_OPEN), 1),
    ],
)
def test_how_long_an_answer_is_good(outcome: QuoteOutcome | Skipped, seconds: float) -> None:
    assert good_for_s(outcome, NOW, CacheSettings()) == seconds


@given(OUTCOMES, st.floats(allow_nan=False))
def test_what_is_packed_comes_back_as_it_was(
    outcome: QuoteOutcome | Skipped, good_until: float
) -> None:
    packed = pack(good_until, outcome, 1_000.0)
    age_s = 2.5 if isinstance(outcome, Quote) else 0.0
    answer = Answer("acme", outcome, 0.0, cached=True, age_s=age_s)
    assert unpack(QUESTION, "acme", packed, 1_002.5) == answer
    assert good(packed) == good_until
    assert is_answer(packed) is answer.answered
    assert with_good(packed, 1.5) == pack(1.5, outcome, 1_000.0)


def test_a_usual_quote_takes_few_bytes() -> None:
    usual = replace(quote(60), quote_id="01JD8Z6Q7R5T9VXKMTN5ABCDEF")
    assert len(pack(1.0, usual, 0.0)) <= 72


@given(st.lists(st.tuples(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True), OUTCOMES)))
def test_frames_are_split_as_they_were_joined(
    answers: list[tuple[str, QuoteOutcome | Skipped]],
) -> None:
    entries = [(seller_id, pack(1.0, outcome, 0.0)) for seller_id, outcome in answers]
    assert list(split(frames(entries))) == entries


@pytest.mark.parametrize(
    ("known", "new", "kept"),
    [
        (pack(9.0, NO, 0.0), pack(5.0, FAILED, 0.0), "known"),
        (pack(5.0, NO, 0.0), pack(5.0, FAILED, 0.0), "new"),
        (pack(5.0, FAILED, 0.0), pack(9.0, FAILED, 0.0), "new"),
        (pack(9.0, NO, 0.0), pack(5.0, quote(60), 0.0), "new"),
        (pack(9.0, FAILED, 0.0), pack(5.0, NO, 0.0), "new"),
    ],
)
def test_only_a_failure_gives_way_to_what_is_good_for_longer(
    known: bytes, new: bytes, kept: str
) -> None:
    entries = {"acme": known}
    keep(entries, "acme", new)
    assert entries == {"acme": new if kept == "new" else known}


def test_the_questions_used_longest_ago_are_forgotten_first() -> None:
    answer = pack(1.0, NO, 0.0)
    memory = KnownAnswers(9)
    for question in "abc":
        memory.put(question, [("acme", answer), ("beta", answer)])
    assert len(memory) == 9
    memory.of("a")
    memory.put("b", [("acme", answer)])
    memory.put("d", [("acme", answer)])
    assert [bool(memory.of(question)) for question in "abcd"] == [True, True, False, True]
    assert len(memory) == 8


def test_one_question_is_kept_however_many_answers_it_has() -> None:
    memory = KnownAnswers(3)
    memory.put("a", [("acme", pack(1.0, NO, 0.0))])
    memory.put("b", [(f"s{number}", pack(1.0, NO, 0.0)) for number in range(10)])
    assert len(memory.of("b")) == 10
    assert not memory.of("a")
    assert len(memory) == 11
