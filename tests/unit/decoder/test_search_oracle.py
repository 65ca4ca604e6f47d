"""The beam search against the oracle: with a beam as wide as the problem, every text and score must agree."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.ctc_oracle import Objective, all_scores, text_log_probabilities, word_tokens
from helpers.tiny_ngram import TinyNgram, random_ngram
from longhand_decoder import UNLIMITED, BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel

ALPHABETS = [
    ["", "a", "b"],
    ["", "a", " "],
    ["a", "", "b", " "],
    ["", "a", "'", "b"],
    ["", "1", "a", ","],
    ["", "é", "a", " "],
]
WORDS = ["a", "b", "ab", "aa", "ba", "a'b", ",", "'", "1", "11", "é", "aé"]
CHARACTERS = ["a", "b", "\u2581", "'", ",", "1"]
EVERYTHING = {
    "beam_width": 5000,
    "beam_threshold": UNLIMITED,
    "token_threshold": UNLIMITED,
    "alternatives": 5000,
}
oracle_settings = settings(max_examples=260, deadline=None, suppress_health_check=list(HealthCheck))

weights = st.floats(0.0, 2.0)
bonuses = st.floats(-2.0, 2.0)
seeds = st.integers(0, 2**31)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="longhand-oracle-"))


@functools.cache
def model(kind: str, order: int, seed: int) -> tuple[TinyNgram, NgramLanguageModel]:
    ngram = random_ngram(WORDS if kind == "words" else CHARACTERS, order, seed)
    return ngram, NgramLanguageModel(ngram.write_arpa(folder() / f"{kind}-{order}-{seed}.arpa"))


models = st.tuples(st.integers(2, 4), st.integers(0, 4))


def random_line(seed: int, labels: Sequence[str]) -> NDArray[np.float64]:
    """Up to five frames, some sure and some not, some with labels that are impossible."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(0, 6))
    logits = rng.normal(scale=rng.choice([0.5, 2.0, 5.0]), size=(frames, len(labels)))
    logits[rng.random(logits.shape) < rng.choice([0.0, 0.2])] = -np.inf
    logits[np.isneginf(logits).all(axis=1)] = 0.0
    with np.errstate(divide="ignore"):
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def check(
    log_probs: NDArray[np.float64],
    labels: list[str],
    objective: Objective,
    *,
    path_merge: str = "sum",
    **models: Any,
) -> None:
    single = log_probs.astype(np.float32).astype(np.float64)
    acoustic = text_log_probabilities(single, labels, best_path=path_merge == "max")
    expected = all_scores(acoustic, objective)
    names: tuple[str, ...] = (
        "word_weight",
        "word_bonus",
        "unknown_word_penalty",
        "character_weight",
        "character_bonus",
        "figures_weight",
    )
    names += ("closed_lexicon", "sentence_start", "sentence_end", "context", "hotwords")
    options = BeamSearchOptions(
        **EVERYTHING,  # type: ignore[arg-type]
        **{name: getattr(objective, name) for name in names},
        word_splitting="spaces" if objective.spaces_only else "letters",
        path_merge=path_merge,  # type: ignore[arg-type]
    )
    decoder = CtcBeamSearchDecoder(labels, options=options, **models)
    got = decoder.decode(log_probs)
    if not expected:  # a closed lexicon, and not even the empty text is possible
        assert got[0].text == ""
        return
    assert {h.text for h in got} == expected.keys()
    for h in got:
        assert h.score == pytest.approx(expected[h.text], abs=1e-4), h.text
        assert h.acoustic_score == pytest.approx(acoustic[h.text], abs=1e-4)
        if models.get("word_model") and objective.word_weight > 0:
            assert h.word_model_score == pytest.approx(objective.word_score(h.text), abs=1e-4)
        if models.get("character_model") and objective.character_weight > 0:
            expected_score = objective.character_score(h.text)
            assert h.character_model_score == pytest.approx(expected_score, abs=1e-4)
    scores = [h.score for h in got]
    assert scores == sorted(scores, reverse=True)
    assert sum(h.confidence for h in got) == pytest.approx(1.0)
    share = 1 / sum(math.exp(score - scores[0]) for score in scores)
    assert got[0].confidence == pytest.approx(share, abs=1e-6)


@oracle_settings
@given(st.sampled_from(ALPHABETS), seeds, bonuses, st.sampled_from(["sum", "max"]))
def test_no_model(labels: list[str], seed: int, bonus: float, merge: str) -> None:
    check(random_line(seed, labels), labels, Objective(character_bonus=bonus), path_merge=merge)


@oracle_settings
@given(st.sampled_from(ALPHABETS), seeds, models, weights, bonuses, weights, st.booleans())
def test_word_model(
    labels: list[str],
    seed: int,
    which: tuple[int, int],
    weight: float,
    bonus: float,
    penalty: float,
    spaces: bool,
) -> None:
    ngram, loaded = model("words", *which)
    objective = Objective(
        ngram, word_weight=weight, word_bonus=bonus, unknown_word_penalty=penalty, spaces_only=spaces
    )
    check(random_line(seed, labels), labels, objective, word_model=loaded)


@oracle_settings
@given(st.sampled_from(ALPHABETS), seeds, models, weights, bonuses)
def test_character_model(
    labels: list[str], seed: int, which: tuple[int, int], weight: float, bonus: float
) -> None:
    ngram, loaded = model("characters", *which)
    objective = Objective(character_model=ngram, character_weight=weight, character_bonus=bonus)
    check(random_line(seed, labels), labels, objective, character_model=loaded)


@oracle_settings
@given(st.sampled_from(ALPHABETS), seeds, models, models, weights, weights, st.sampled_from(["sum", "max"]))
def test_both_models(
    labels: list[str],
    seed: int,
    words: tuple[int, int],
    characters: tuple[int, int],
    word_weight: float,
    character_weight: float,
    merge: str,
) -> None:
    (word_ngram, word_model), (character_ngram, character_model) = (
        model("words", *words),
        model("characters", *characters),
    )
    objective = Objective(
        word_ngram, character_ngram, word_weight=word_weight, character_weight=character_weight
    )
    line = random_line(seed, labels)
    check(line, labels, objective, path_merge=merge, word_model=word_model, character_model=character_model)


@oracle_settings
@given(
    st.sampled_from(
        [
            ["", "1", "a", ","],
            ["", "1", "A", " "],
            ["", "1", "'", "B"],
            ["", "1", "2"],
            ["", "1", "A", "b"],
            ["", "É", "1", "A"],
        ]
    ),
    seeds,
    models,
    st.floats(0.0, 1.0),
    bonuses,
    bonuses,
    st.booleans(),
    st.booleans(),
)
def test_figures_weight(
    labels: list[str],
    seed: int,
    which: tuple[int, int],
    figures: float,
    word_bonus: float,
    character_bonus: float,
    end: bool,
    spaces: bool,
) -> None:
    (word_ngram, word_model), (character_ngram, character_model) = (
        model("words", *which),
        model("characters", *which),
    )
    objective = Objective(
        word_ngram,
        character_ngram,
        word_bonus=word_bonus,
        character_bonus=character_bonus,
        figures_weight=figures,
        sentence_end=end,
        spaces_only=spaces,
    )
    line = random_line(seed, labels)
    check(line, labels, objective, word_model=word_model, character_model=character_model)


@oracle_settings
@given(
    st.sampled_from(ALPHABETS),
    seeds,
    models,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "a", "ab, ", "zz b", "a'b", "b a,b", "a1"]),
    st.booleans(),
)
def test_boundaries_and_context(
    labels: list[str], seed: int, which: tuple[int, int], start: bool, end: bool, context: str, spaces: bool
) -> None:
    (word_ngram, word_model), (character_ngram, character_model) = (
        model("words", *which),
        model("characters", *which),
    )
    objective = Objective(
        word_ngram,
        character_ngram,
        sentence_start=start,
        sentence_end=end,
        context=context,
        spaces_only=spaces,
    )
    line = random_line(seed, labels)
    check(line, labels, objective, word_model=word_model, character_model=character_model)


HOTWORDS = ["a", "ab", "ba", "a b", "b a", "b", "a'b", "aa", "a a", "1", ",", "é", "1a"]


@oracle_settings
@given(
    st.sampled_from(ALPHABETS),
    seeds,
    st.dictionaries(st.sampled_from(HOTWORDS), st.floats(-3.0, 4.0), min_size=1, max_size=4),
    st.one_of(st.none(), models),
    st.booleans(),
)
def test_hotwords(
    labels: list[str], seed: int, hotwords: dict[str, float], which: tuple[int, int] | None, spaces: bool
) -> None:
    ngram, loaded = model("words", *which) if which else (None, None)
    objective = Objective(ngram, hotwords=hotwords, spaces_only=spaces)
    check(random_line(seed, labels), labels, objective, word_model=loaded)


@oracle_settings
@given(
    st.sampled_from(ALPHABETS),
    seeds,
    st.frozensets(st.sampled_from(WORDS), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), models),
)
def test_lexicon(
    labels: list[str],
    seed: int,
    lexicon: frozenset[str],
    closed: bool,
    spaces: bool,
    which: tuple[int, int] | None,
) -> None:
    ngram, loaded = model("words", *which) if which else (None, None)
    if closed and not spaces:  # others are refused
        lexicon = frozenset(word for word in lexicon if len(word_tokens(word)) == 1) or frozenset({"a"})
    objective = Objective(ngram, lexicon=lexicon, closed_lexicon=closed, spaces_only=spaces)
    check(random_line(seed, labels), labels, objective, word_model=loaded, lexicon=sorted(lexicon))


@oracle_settings
@given(st.sampled_from(ALPHABETS), seeds, st.floats(0.3, 4.0), st.sampled_from(["log_probs", "logits"]))
def test_temperature_and_logits(labels: list[str], seed: int, temperature: float, kind: str) -> None:
    line = random_line(seed, labels).astype(np.float32)
    given_numbers = line + 3.5 if kind == "logits" else line
    flattened = given_numbers.astype(np.float64) / temperature
    flattened -= np.log(np.exp(flattened).sum(axis=1, keepdims=True))
    expected = text_log_probabilities(flattened, labels)
    options = BeamSearchOptions(**EVERYTHING, temperature=temperature, input=kind)  # type: ignore[arg-type]
    got = CtcBeamSearchDecoder(labels, options=options).decode(given_numbers)
    assert {h.text for h in got} == expected.keys()
    for h in got:
        assert h.acoustic_score == pytest.approx(expected[h.text], abs=1e-4)


def random_priors(seed: int, labels: Sequence[str]) -> NDArray[np.float64]:
    """Not normalised; some labels were never said, but one character was."""
    rng = np.random.default_rng(seed)
    priors = rng.exponential(size=len(labels)) * (rng.random(len(labels)) < 0.8)
    priors[rng.choice([column for column, label in enumerate(labels) if label])] = 1.0
    return np.asarray(priors)


def divided_by_priors(
    line: NDArray[np.float64],
    labels: Sequence[str],
    priors: NDArray[np.float64],
    power: float,
    temperature: float,
    figures: float,
) -> NDArray[np.float64]:
    """What the search is to see."""
    is_character = np.array([label != "" for label in labels])
    shares = priors * is_character / priors[is_character].sum()
    logs = np.log(np.maximum(shares, 1e-5))
    shift = np.where(is_character, logs - (shares * logs).sum(), 0.0)
    shift *= [figures if label.isdigit() else 1.0 for label in labels]
    divided = line.astype(np.float32) / temperature - power * shift
    return np.asarray(divided - np.log(np.exp(divided).sum(axis=1, keepdims=True)))


@oracle_settings
@given(
    st.sampled_from(ALPHABETS),
    seeds,
    st.floats(0.05, 1.5),
    st.sampled_from([1.0, 0.6, 2.0]),
    st.sampled_from([1.0, 0.4]),
    st.booleans(),
    models,
)
def test_label_priors(
    labels: list[str],
    seed: int,
    weight: float,
    temperature: float,
    figures: float,
    words: bool,
    which: tuple[int, int],
) -> None:
    ngram, loaded = model("characters", *which)
    word_ngram, word_loaded = model("words", *which) if words else (None, None)
    line, priors = random_line(seed, labels), random_priors(seed, labels)
    objective = Objective(word_ngram, ngram, word_weight=0.7, character_weight=0.9, figures_weight=figures)
    power = weight * objective.character_weight
    divided = divided_by_priors(line, labels, priors, power, temperature, figures)
    acoustic = text_log_probabilities(divided, labels)
    expected = all_scores(acoustic, objective)
    names = ("word_weight", "word_bonus", "unknown_word_penalty", "character_weight", "character_bonus")
    options = BeamSearchOptions(
        **EVERYTHING,  # type: ignore[arg-type]
        **{name: getattr(objective, name) for name in names},
        prior_weight=weight,
        temperature=temperature,
        figures_weight=figures,
    )
    decoder = CtcBeamSearchDecoder(
        labels,
        options=options,
        label_priors=priors,
        word_model=word_loaded,
        character_model=loaded,
    )
    got = decoder.decode(line)
    assert {h.text for h in got} == expected.keys()
    for h in got:
        assert h.score == pytest.approx(expected[h.text], abs=1e-4), h.text
        assert h.acoustic_score == pytest.approx(acoustic[h.text], abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_label_priors_do_nothing_where_the_character_model_has_no_say(seed: int) -> None:
    labels = ALPHABETS[seed % len(ALPHABETS)]
    line, priors = random_line(seed, labels), random_priors(seed, labels)
    (_, characters), (_, words) = model("characters", 3, 1), model("words", 3, 1)
    options = BeamSearchOptions(alternatives=20, prior_weight=1.0, character_weight=0.0)
    for parts in ({}, {"character_model": characters}, {"word_model": words}, {"lexicon": ["ab"]}):
        plain = CtcBeamSearchDecoder(labels, options=options, **parts)
        informed = CtcBeamSearchDecoder(labels, options=options, label_priors=priors, **parts)
        assert informed.decode(line) == plain.decode(line)
    weighted = BeamSearchOptions(alternatives=20, character_weight=0.5, prior_weight=0.0)
    pair = [
        CtcBeamSearchDecoder(labels, options=weighted, character_model=characters, label_priors=given_priors)
        for given_priors in (None, priors)
    ]
    assert pair[0].decode(line) == pair[1].decode(line)
    assert pair[0].decode_greedy(line) == pair[1].decode_greedy(line)


@pytest.mark.parametrize("weight", [1e-300, 1e6])
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_label_priors_with_absurd_weights_still_give_a_text(weight: float, temperature: float) -> None:
    labels = ALPHABETS[2]
    options = BeamSearchOptions(
        prior_weight=weight, character_weight=max(weight, 1.0), temperature=temperature, alternatives=5
    )
    _, characters = model("characters", 3, 1)
    decoder = CtcBeamSearchDecoder(
        labels, options=options, character_model=characters, label_priors=[0.0, 5.0, 1e-9, 1e9]
    )
    for hypothesis in decoder.decode(random_line(3, labels)):
        assert set(hypothesis.text) <= set(labels)
        assert not math.isnan(hypothesis.score)
        assert 0.0 <= hypothesis.confidence <= 1.0


@oracle_settings
@given(st.sampled_from(ALPHABETS), seeds, st.sampled_from(["a", "ab ", "", "b1"]))
def test_allowed_characters(labels: list[str], seed: int, allowed: str) -> None:
    line = random_line(seed, labels)
    line[:, labels.index("")] = np.maximum(line[:, labels.index("")], -5.0)
    masked = line.astype(np.float32).astype(np.float64)
    for column, label in enumerate(labels):
        if label and label not in allowed:
            masked[:, column] = -np.inf
    expected = text_log_probabilities(masked, labels)
    options = BeamSearchOptions(**EVERYTHING, allowed_characters=allowed)  # type: ignore[arg-type]
    got = CtcBeamSearchDecoder(labels, options=options).decode(np.minimum(line, 0.0))
    assert {h.text for h in got} == expected.keys()
    for h in got:
        assert h.acoustic_score == pytest.approx(expected[h.text], abs=1e-4)
