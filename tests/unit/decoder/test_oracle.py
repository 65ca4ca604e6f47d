"""The oracle itself, against numbers worked out by hand and properties that must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.ctc_oracle import (
    Objective,
    all_scores,
    collapse,
    hotword_count,
    text_log_probabilities,
    word_tokens,
)
from helpers.tiny_ngram import TinyNgram


def test_collapse_joins_repeats_and_then_drops_blanks() -> None:
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0], blank=0) == (1, 1, 2)


def test_two_frames_by_hand() -> None:
    # P(a) = 0.6, 0.5: "a" is aa, a-, -a; "aa" would need three frames.
    probabilities = np.array([[0.4, 0.6], [0.5, 0.5]])
    scores = text_log_probabilities(np.log(probabilities), ["", "a"])
    assert scores.keys() == {"", "a"}
    assert scores[""] == pytest.approx(math.log(0.4 * 0.5))
    assert scores["a"] == pytest.approx(math.log(0.6 * 0.5 + 0.6 * 0.5 + 0.4 * 0.5))
    best = text_log_probabilities(np.log(probabilities), ["", "a"], best_path=True)
    assert best["a"] == pytest.approx(math.log(0.6 * 0.5))


def test_all_texts_together_have_probability_one() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), size=5)
    scores = text_log_probabilities(np.log(probabilities), ["", "a", "b", " "])
    assert sum(math.exp(score) for score in scores.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("don't,", ["don't", ","]),
        ("'tis 'so'", ["'", "tis", "'", "so", "'"]),
        ("a''b", ["a", "'", "'", "b"]),
        ("B12 3rd", ["B", "12", "3", "rd"]),
        ("  two  spaces ", ["two", "spaces"]),
        ("l’été—naïve", ["l’été", "—", "naïve"]),
        ("1'2", ["1", "'", "2"]),
        ("", []),
    ],
)
def test_tokens_by_hand(text: str, tokens: list[str]) -> None:
    assert word_tokens(text) == tokens


def test_backoff_by_hand() -> None:
    model = TinyNgram(
        2,
        {("<unk>",): -3.0, ("<s>",): -99.0, ("</s>",): -1.0, ("a",): -0.5, ("b",): -0.7, ("a", "b"): -0.2},
        {("a",): -0.4, ("b",): -0.6, ("<s>",): -0.1},
    )
    assert model.log_probability([], ["a", "b"]) == pytest.approx((-0.5 - 0.2) * math.log(10))
    assert model.log_probability(["<s>"], ["a", "a"]) == pytest.approx(
        (-0.1 - 0.5 - 0.4 - 0.5) * math.log(10)
    )
    assert model.log_probability([], ["z"]) == pytest.approx(-3.0 * math.log(10))


def test_hotwords_are_whole_words() -> None:
    assert hotword_count("York, New York; Yorkshire York's", "York") == 3
    assert hotword_count("a a a", "a a") == 2
    assert hotword_count("12 123", "12") == 1


def test_closed_lexicon_leaves_out_what_it_does_not_have() -> None:
    objective = Objective(lexicon=frozenset({"a"}), closed_lexicon=True, word_bonus=2.0)
    acoustic = text_log_probabilities(np.log(np.full((2, 3), 1 / 3)), ["", "a", "b"])
    scores = all_scores(acoustic, objective)
    assert scores.keys() == {"", "a"}
    assert scores["a"] == pytest.approx(math.log(3 / 9) + 2.0)
