from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from hypothesis import given
from hypothesis import strategies as st

from longhand_training.metrics import (
    alignment,
    bootstrap_interval,
    character_error_rate,
    edit_distance,
    error_rates,
    expected_calibration_error,
    word_error_rate,
)


def _slow_distance(a: str, b: str) -> int:
    """By recursion on the definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        _slow_distance(a[1:], b) + 1,
        _slow_distance(a, b[1:]) + 1,
        _slow_distance(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_edit_distance_equals_its_definition_on_all_short_texts() -> None:
    words = ["".join(p) for n in range(4) for p in itertools.product("ab", repeat=n)]
    for a, b in itertools.product(words, words):
        assert edit_distance(a, b) == _slow_distance(a, b)


@given(st.text("abc ", max_size=12), st.text("abc ", max_size=12))
def test_an_alignment_rebuilds_both_texts_at_the_least_cost(a: str, b: str) -> None:
    pairs = alignment(a, b)
    assert "".join(x for x, _ in pairs) == a
    assert "".join(y for _, y in pairs) == b
    assert sum(x != y for x, y in pairs) == edit_distance(a, b)


def test_rates_are_summed_over_lines_not_averaged() -> None:
    references, texts = ["abcd", "ab"], ["abxd", "ab"]
    assert character_error_rate(references, texts) == pytest.approx(1 / 6)
    assert word_error_rate(["one two", "three"], ["one too", "three"]) == pytest.approx(1 / 3)
    rates = error_rates(references, texts)
    assert (rates.line_accuracy, rates.lines) == (0.5, 2)
    rates = error_rates(["ab", "ab", "cd"], ["ab", "ab", "cx"])  # lines of one text count each
    assert rates.line_accuracy == pytest.approx(2 / 3)
    assert rates.lines == 3


def test_lines_must_match_in_number() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer|argument"):
        character_error_rate(["a"], [])
    with pytest.raises(ValueError, match="no lines"):
        error_rates([], [])


def test_the_bootstrap_interval_holds_the_rate_and_narrows_with_lines() -> None:
    few = bootstrap_interval(["abcd", "efgh"] * 5, ["abcd", "efgx"] * 5)
    many = bootstrap_interval(["abcd", "efgh"] * 200, ["abcd", "efgx"] * 200)
    assert few[0] <= 0.125 <= few[1]
    assert many[1] - many[0] < few[1] - few[0]


def test_the_bootstrap_interval_is_that_of_95_percent() -> None:
    # Half of 400 lines have a quarter of their signs wrong: the rate's standard deviation is 0.125 / 20.
    low, high = bootstrap_interval(["abcd", "efgh"] * 200, ["abcd", "efgx"] * 200)
    assert (low, high) == pytest.approx((0.125 - 1.96 * 0.125 / 20, 0.125 + 1.96 * 0.125 / 20), abs=0.002)


def test_the_bootstrap_divides_by_the_characters_of_the_lines_drawn() -> None:
    # One draw in four is the short line twice, of which nothing was right.
    references, texts = ["a", "b" * 9], ["x", "b" * 9]
    assert bootstrap_interval(references, texts) == (0.0, 1.0)
    # Of many lines a tenth of the signs is wrong, though half of the lines are.
    assert bootstrap_interval(references * 200, texts * 200) == pytest.approx((0.1, 0.1), abs=0.03)


def test_the_bootstrap_interval_is_always_the_same() -> None:
    references, texts = ["abcd", "efghi", "jk"] * 20, ["abcd", "efghx", "xx"] * 20
    assert bootstrap_interval(references, texts) == bootstrap_interval(references, texts)


def test_calibration_error_weighs_each_bin_by_its_lines() -> None:
    gaps = [0.75 * (0.95 - 2 / 3), 0.25 * 0.15]
    assert expected_calibration_error([0.95, 0.95, 0.95, 0.15], [True, True, False, False]) == pytest.approx(
        sum(gaps)
    )


def test_calibration_bins_are_tenths_from_0_on() -> None:
    # 0.21 and 0.29 are one bin, half of which is right; 0.19 would be another's.
    assert expected_calibration_error([0.21, 0.29], [True, False]) == pytest.approx(0.25)
    assert expected_calibration_error([0.19, 0.21], [True, False]) == pytest.approx(0.5 * 0.81 + 0.5 * 0.21)


def test_calibration_error_is_zero_for_honest_confidence_and_one_for_sure_and_wrong() -> None:
    assert expected_calibration_error([0.5, 0.5], [True, False]) == pytest.approx(0.0)
    assert expected_calibration_error([1.0, 1.0], [False, False]) == pytest.approx(1.0)
