"""What is in the beam at the end, against a plain search over dictionaries of prefixes (`helpers.beam_reference`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.beam_reference import search
from helpers.ctc_oracle import figure_tokens, word_tokens
from helpers.noisy_lines import ANY, LABELS, MANY, noisy_line
from longhand_decoder import UNLIMITED, BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel


def check_beam(
    decoder: CtcBeamSearchDecoder,
    labels: Sequence[str],
    options: BeamSearchOptions,
    line: NDArray[np.float32],
    models: Callable[[tuple[int, ...]], float],
    **more: Any,
) -> None:
    """Holds the texts in the decoder's beam against those of the plain search, whose language models are `models`."""
    expected = search(
        line.astype(np.float64),
        labels,
        models,
        beam_width=options.beam_width,
        beam_threshold=options.beam_threshold,
        token_threshold=options.token_threshold,
        **more,
    )
    assert {h.text for h in decoder.decode(line)} == {
        "".join(labels[v] for v in prefix) for prefix in expected
    }


@settings(max_examples=40, **ANY)
@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 3, 8, 30]),
    st.sampled_from([-3.0, -8.0, UNLIMITED]),
    st.booleans(),
)
def test_the_beam_is_the_plain_search_s(seed: int, width: int, threshold: float, many: bool) -> None:
    labels = MANY if many else LABELS
    line = noisy_line(seed, len(labels))
    options = BeamSearchOptions(
        beam_width=width,
        beam_threshold=threshold,
        token_threshold=-4.0,
        alternatives=width,
        character_bonus=0.3,
    )
    got = CtcBeamSearchDecoder(labels, options=options).decode(line)
    expected = search(
        line.astype(np.float64),
        labels,
        lambda prefix: 0.3 * len(prefix),
        beam_width=width,
        beam_threshold=threshold,
        token_threshold=-4.0,
    )
    texts = {"".join(labels[v] for v in prefix): score for prefix, score in expected.items()}
    assert {h.text for h in got} == texts.keys()
    for h in got:
        assert h.acoustic_score == pytest.approx(texts[h.text], abs=1e-4)


@settings(max_examples=30, **ANY)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([4, 25]),
    figures=st.sampled_from([1.0, 0.3]),
    bonus=st.sampled_from([0.0, -1.0, 1.0]),
)
def test_the_beam_with_a_character_model_is_the_plain_search_s(
    seed: int, width: int, figures: float, bonus: float, character_model: NgramLanguageModel
) -> None:
    line = noisy_line(seed, len(LABELS), 20)
    options = BeamSearchOptions(
        beam_width=width,
        beam_threshold=-9.0,
        token_threshold=-5.0,
        alternatives=width,
        character_weight=0.6,
        character_bonus=bonus,
        figures_weight=figures,
    )

    @functools.cache
    def models(prefix: tuple[int, ...]) -> float:
        if not prefix:
            return 0.0
        # A line begins behind a space.
        tokens = ["\u2581", *("\u2581" if LABELS[v] == " " else LABELS[v] for v in prefix)]
        step = 0.6 * (character_model.score(tokens) - character_model.score(tokens[:-1])) + bonus
        return models(prefix[:-1]) + (figures if "1" in tokens[-2:] else 1.0) * step

    check_beam(
        CtcBeamSearchDecoder(LABELS, character_model=character_model, options=options),
        LABELS,
        options,
        line,
        models,
    )


@settings(max_examples=60, **ANY)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([2, 5, 25]),
    bonus=st.sampled_from([0.0, 1.5]),
    growing=st.booleans(),
)
def test_the_beam_with_a_lexicon_is_the_plain_search_s(
    seed: int, width: int, bonus: float, growing: bool
) -> None:
    labels = ["", "a", "b", "c", " ", "\xe1"]
    words = {"ab", "abc", "ca", "b", "cab"}
    line = noisy_line(seed, len(labels), 25)
    options = BeamSearchOptions(
        beam_width=width,
        beam_threshold=-9.0,
        token_threshold=-5.0,
        alternatives=width,
        word_bonus=bonus,
        unknown_word_penalty=2.5,
        open_unknown_penalty=4.0 if growing else None,
    )

    def models(prefix: tuple[int, ...]) -> float:
        *ended, last = "".join(labels[v] for v in prefix).split(" ")
        total = sum(bonus - 2.5 * (word not in words) for word in ended if word)
        if any(word.startswith(last) for word in words):
            return total
        return total - (4.0 * max(1.0, len(last) / 6) if growing else 2.5)

    check_beam(
        CtcBeamSearchDecoder(labels, lexicon=sorted(words), options=options), labels, options, line, models
    )


@settings(max_examples=100, **ANY)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([2, 5, 25]),
    figures=st.sampled_from([0.0, 0.4, 1.0]),
    bonus=st.sampled_from([0.0, 1.5]),
)
def test_the_beam_with_codes_is_the_plain_search_s(
    seed: int, width: int, figures: float, bonus: float
) -> None:
    labels = ["", "a", "A", "B", "1", " "]
    words = {"a", "A", "Aa", "ABB"}
    line = noisy_line(seed, len(labels), 25)
    options = BeamSearchOptions(
        beam_width=width,
        beam_threshold=-6.0,
        token_threshold=-5.0,
        alternatives=width,
        word_bonus=bonus,
        unknown_word_penalty=4.0,
        figures_weight=figures,
    )

    def models(prefix: tuple[int, ...]) -> float:
        text = "".join(labels[v] for v in prefix)
        tokens = word_tokens(text)
        shares = [figures if figure else 1.0 for figure in figure_tokens(text, tokens)]
        total = 0.0
        for i, (token, share) in enumerate(zip(tokens, shares, strict=True), start=1):
            unfinished = i == len(tokens) and text[-1] != " "
            known = any(word.startswith(token) for word in words) if unfinished else token in words
            total += (0.0 if unfinished else share * bonus) - share * 4.0 * (not known and token[0] != "1")
        return total

    check_beam(
        CtcBeamSearchDecoder(labels, lexicon=sorted(words), options=options), labels, options, line, models
    )


@settings(max_examples=100, **ANY)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([2, 5, 25]),
    threshold=st.sampled_from([-2.0, -6.0]),
    hotwords=st.lists(
        st.tuples(st.sampled_from(["ab", "a b", "b", "abc", "b ca", "cab", "a1"]), st.floats(-3.0, 7.0)),
        min_size=1,
        max_size=5,
    ),
)
# Of hotwords with the same text the dearest counts.
@example(seed=7, width=5, threshold=-6.0, hotwords=[("ab", 4.0), ("ab", -1.0)])
def test_the_beam_with_hotwords_is_the_plain_search_s(
    seed: int, width: int, threshold: float, hotwords: list[tuple[str, float]]
) -> None:
    labels = ["", "a", "b", "c", " ", "1"]
    line = noisy_line(seed, len(labels), 25)
    options = BeamSearchOptions(
        beam_width=width,
        beam_threshold=threshold,
        token_threshold=-5.0,
        alternatives=width,
        hotwords=hotwords,
    )
    boosts = {word: max(boost for other, boost in hotwords if other == word) for word, _ in hotwords}

    def may_begin(text: str, at: int) -> bool:
        pair = text[at - 1 : at + 1]
        return at == 0 or not (pair.isalpha() or pair.isdigit())

    def ending(text: str, end: int, first: int = 0) -> float:
        """The boosts of the hotwords that end before character `end`, and begin at `first` or behind it."""
        starts = [i for i in range(first, end) if may_begin(text, i)]
        return sum(boosts.get(text[i:end], 0.0) for i in starts)

    @functools.cache
    def credit(prefix: tuple[int, ...]) -> float:
        """A share of the hotwords that the text ends like the beginning of, or what is due if it ends here."""
        text = "".join(labels[v] for v in prefix)
        most = 0.0
        for first in range(len(text)):
            part = text[first:]
            begun = [boost * len(part) / len(word) for word, boost in boosts.items() if word.startswith(part)]
            if begun and may_begin(text, first):
                most = max(most, *begun, ending(text, len(text), first))
        return most

    @functools.cache
    def models(prefix: tuple[int, ...]) -> float:
        text = "".join(labels[v] for v in prefix)
        return sum(ending(text, end) for end in range(1, len(text)) if may_begin(text, end)) + credit(prefix)

    check_beam(CtcBeamSearchDecoder(labels, options=options), labels, options, line, models, credit=credit)
