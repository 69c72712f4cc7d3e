"""What is said of those who were not asked comes true as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.selection.coverage import (
    Calibration,
    Raw,
    calibration_error,
    raw_coverage,
    reliability,
)


def test_chances_of_many_add_up_to_that_of_one_of_them() -> None:
    undercuts = np.array([0.5, 0.5, 0.0], np.float32)
    raw = raw_coverage(undercuts, np.array([0.05, 0.01, 0.0], np.float32))
    assert raw.chance == pytest.approx(0.75)
    assert raw.saving == pytest.approx(0.06)


def test_where_nobody_is_left_nothing_is_missed() -> None:
    nobody = np.empty(0, np.float32)
    assert raw_coverage(nobody, nobody) == Raw(0.0, 0.0)


def test_nothing_is_corrected_before_anything_is_known() -> None:
    corrected = Calibration().correct(Raw(0.3, 0.04))
    assert corrected.chance == pytest.approx(0.3)
    assert corrected.saving == pytest.approx(0.04)


def test_what_is_overconfident_and_too_high_is_corrected() -> None:
    rng = np.random.default_rng(3)
    calibration = Calibration()
    corrected, true = [], []
    for number in range(1500):
        odds = rng.normal(-1.0, 1.0)
        # Said with twice the certainty, and one more in log-odds.
        raw = Raw(float(1 / (1 + np.exp(-(2 * odds + 1)))), 0.10)
        came_true = bool(rng.random() < 1 / (1 + np.exp(-odds)))
        if number >= 700:
            corrected.append(calibration.correct(raw).chance)
            true.append(came_true)
        calibration.learn(raw, 0.05 if came_true else 0.0)
    bins = reliability(np.array(corrected), np.array(true))
    assert calibration_error(bins) < 0.06
    assert calibration.correct(Raw(0.5, 0.10)).saving == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_calibration_stays_finite_whatever_comes_true(chance: float) -> None:
    calibration = Calibration()
    for number in range(200):
        calibration.learn(Raw(chance, 0.0), 0.2 if number % 2 else 0.0)
    assert calibration.correct(Raw(chance, 0.0)).chance == pytest.approx(0.5, abs=0.05)


def test_a_calibration_survives_being_dumped_and_loaded() -> None:
    calibration, other = Calibration(), Calibration()
    for number in range(50):
        calibration.learn(Raw(0.9, 0.1), 0.05 if number % 4 == 0 else 0.0)
    other.load(calibration.dump())
    raw = Raw(0.9, 0.1)
    assert other.correct(raw).chance == pytest.approx(calibration.correct(raw).chance, abs=1e-4)


def test_a_reliability_diagram_has_groups_of_equal_size() -> None:
    bins = reliability(np.array([0.9, 0.1, 0.2, 0.8]), np.array([True, False, False, True]), bins=2)
    assert [group.count for group in bins] == [2, 2]
    assert [group.said for group in bins] == pytest.approx([0.15, 0.85])
    assert [group.true for group in bins] == [0.0, 1.0]
    assert calibration_error(bins) == pytest.approx(0.15)


def test_new_books_and_known_ones_are_corrected_apart() -> None:
    rng = np.random.default_rng(5)
    calibration = Calibration()
    new, known = (raw_coverage(*_SAME, answers) for answers in (0, 10_000))
    for _ in range(400):
        calibration.learn(new, 0.1 if rng.random() < 0.6 else 0.0)
        calibration.learn(known, 0.1 if rng.random() < 0.05 else 0.0)
    assert calibration.correct(new).chance == pytest.approx(0.6, abs=0.08)
    assert calibration.correct(known).chance == pytest.approx(0.05, abs=0.04)
    other = Calibration()
    other.load(calibration.dump())
    assert other.correct(known).chance == pytest.approx(calibration.correct(known).chance)


def test_books_of_which_something_is_known_may_err_otherwise_than_new_and_well_known_ones() -> None:
    rng = np.random.default_rng(7)
    calibration = Calibration()
    raws = [raw_coverage(*_SAME, answers) for answers in (0, 300, 6_000)]
    truth = [0.2, 0.5, 0.05]
    for _ in range(300):
        for raw, true in zip(raws, truth, strict=True):
            calibration.learn(raw, 0.1 if rng.random() < true else 0.0)
    said = [calibration.correct(raw).chance for raw in raws]
    assert said == pytest.approx(truth, abs=0.1)


def test_what_was_dumped_without_what_was_known_of_books_is_taken_over() -> None:
    calibration, other = Calibration(), Calibration()
    for number in range(50):
        calibration.learn(Raw(0.9, 0.1), 0.05 if number % 4 == 0 else 0.0)
    other.load(calibration.dump()[:, :2])
    raw = Raw(0.9, 0.1)
    assert other.correct(raw).chance == pytest.approx(calibration.correct(raw).chance)


_SAME = (np.full(20, 0.01, np.float32), np.full(20, 0.001, np.float32))


def test_by_many_collections_a_chance_is_known_to_less_than_two_points() -> None:
    rng = np.random.default_rng(5)
    odds, errors = np.log(0.1 / 0.9), []
    for _ in range(40):
        true = rng.random(3000) < 0.25
        calibration = Calibration()
        calibration.load(np.stack([np.full(3000, odds), true, np.zeros(3000)], axis=1))
        errors.append(calibration.correct(Raw(0.1, 0.1)).chance - 0.25)
    assert np.sqrt(np.mean(np.square(errors))) < 0.015
