from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longhand_client.command.scoring import Edit, Score, align, errors_of, paint

WORDS = st.text(alphabet="ab ", max_size=6)


def distance(left: str, right: str) -> int:
    """Levenshtein's distance by its definition: slow, and without a table."""
    if not left or not right:
        return len(left) + len(right)
    if left[0] == right[0]:
        return distance(left[1:], right[1:])
    return 1 + min(distance(left[1:], right), distance(left, right[1:]), distance(left[1:], right[1:]))


def test_the_oracle_itself() -> None:
    assert distance("kitten", "sitting") == 3
    assert distance("", "abc") == 3


@given(WORDS, WORDS)
def test_alignments_are_shortest_and_complete(expected: str, read: str) -> None:
    steps = align(expected, read)
    assert "".join(step.expected for step in steps) == expected
    assert "".join(step.read for step in steps) == read
    assert errors_of(steps) == distance(expected, read)


def test_every_short_pair() -> None:
    short = ["".join(letters) for size in range(4) for letters in itertools.product("ab", repeat=size)]
    for expected, read in itertools.product(short, short):
        assert errors_of(align(expected, read)) == distance(expected, read)


@pytest.mark.parametrize(
    ("expected", "read", "marked"),
    [
        ("same", "same", "same"),
        ("cat", "cut", "c[-a-]{+u+}t"),
        ("cat", "at", "[-c-]at"),
        ("at", "cat", "{+c+}at"),
        ("abcd", "axyd", "a[-bc-]{+xy+}d"),
        ("end", "ends", "end{+s+}"),
        ("", "", ""),
    ],
)
def test_marks_without_colour(expected: str, read: str, marked: str) -> None:
    assert paint(align(expected, read), colour=False) == marked


def test_readings_of_a_server_cannot_steer_a_terminal() -> None:
    assert (
        paint([Edit("a", "\x1b"), Edit("", "\n"), Edit("\x07", "\x07")], colour=False)
        == "[-a-]{+\\x1b\\n+}\\x07"
    )


def test_marks_in_colour() -> None:
    assert paint([Edit("a", "a"), Edit("b", "c")], colour=True) == "a\x1b[31mb\x1b[0m\x1b[32mc\x1b[0m"


def test_rates_are_over_all_lines() -> None:
    score = Score()
    score.add("abcd efgh", "abcd efgx")
    score.add("a", "a")
    steps, rate = score.add("", "b")
    assert (score.lines, score.exact) == (3, 1)
    assert (score.character_errors, score.characters) == (2, 10)
    assert (score.word_errors, score.words) == (2, 3)
    assert rate == 1.0
    assert steps == [Edit("", "b")]
    assert score.summary() == "CER 20.00 %  WER 66.67 %  exact 1 of 3 lines"


def test_composed_and_decomposed_accents_are_the_same() -> None:
    assert Score().add("cafe\u0301", "caf\u00e9")[1] == 0.0
    assert Score().add("caf\u00e9", "cafe\u0301")[1] == 0.0


def test_no_reference_at_all() -> None:
    assert Score().summary() == "no line scored"
