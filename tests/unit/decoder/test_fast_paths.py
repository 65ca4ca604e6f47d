"""What the decoder spares itself must not show: caches, known gains, slots, columns, text alone."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.noisy_lines import ANY, LABELS, MANY, noisy_line
from longhand_decoder import (
    UNLIMITED,
    BeamSearchOptions,
    CtcBeamSearchDecoder,
    Hypothesis,
    NgramLanguageModel,
)

Lines = list[NDArray[np.float32]]


def assert_same_readings(got: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """The same texts and scores; what differs by rounding alone may change places, or drop out at the end."""
    assert [h.score for h in got] == pytest.approx([h.score for h in expected], abs=1e-3)
    by_text = {h.text: h for h in expected}
    for h in got:
        other = by_text.get(h.text)
        if other is None:
            assert h.score < expected[-1].score + 1e-3
            continue
        assert (h.score, h.acoustic_score) == pytest.approx((other.score, other.acoustic_score), abs=1e-3)
        assert h.confidence == pytest.approx(other.confidence, abs=1e-3)


@settings(max_examples=100, **ANY)
@given(
    seed=st.integers(0, 2**31),
    threshold=st.sampled_from([-0.5, -2.0, -5.0]),
    temperature=st.sampled_from([1.0, 1.7]),
    labels=st.sampled_from([2, 7, 9, 16, 31, 33, 47, 60, 80]),
)
@example(seed=141615, threshold=-5.0, temperature=1.7, labels=47)  # two readings that differ by rounding
def test_below_a_hard_threshold_is_impossible(
    seed: int, threshold: float, temperature: float, labels: int
) -> None:
    line = noisy_line(seed, labels)
    scaled = line / temperature
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    out = (scaled < threshold) & (scaled < scaled.max(axis=1, keepdims=True))
    options = BeamSearchOptions(alternatives=50, character_bonus=0.2)
    decoder = CtcBeamSearchDecoder(MANY[:labels], options=options)
    got = decoder.decode(
        line,
        dataclasses.replace(
            decoder.options, token_threshold=threshold, hard_token_threshold=True, temperature=temperature
        ),
    )
    without = np.where(out, -np.inf, scaled).astype(np.float32)
    expected = decoder.decode(without, dataclasses.replace(decoder.options, token_threshold=UNLIMITED))
    assert_same_readings(got, expected)


@settings(max_examples=300, **ANY)
@given(
    seed=st.integers(0, 2**31),
    threshold=st.sampled_from([-0.5, -2.0, -5.0]),
    width=st.sampled_from([1, 2, 6, 40]),
    beam_threshold=st.sampled_from([-2.0, -9.0, UNLIMITED]),
    merge=st.booleans(),
    path_merge=st.sampled_from(["sum", "max"]),
    words=st.sampled_from(["open", "closed", "hot", "none"]),
    characters=st.booleans(),
    bonus=st.sampled_from([0.0, 1.5]),
)
def test_frames_that_are_sure_of_a_label_are_frames_like_others(
    word_model: NgramLanguageModel,
    character_model: NgramLanguageModel,
    seed: int,
    threshold: float,
    width: int,
    beam_threshold: float,
    merge: bool,
    path_merge: Literal["sum", "max"],
    words: str,
    characters: bool,
    bonus: float,
) -> None:
    # In these every prefix moves on by the label, in a way of its own; where the others are impossible without a
    # threshold, in the usual one.
    line = noisy_line(seed, len(LABELS), 40)
    decoder = CtcBeamSearchDecoder(
        LABELS,
        word_model=None if words == "none" else word_model,
        character_model=character_model if characters else None,
    )
    options = BeamSearchOptions(
        alternatives=width,
        beam_width=width,
        beam_threshold=beam_threshold,
        merge_histories=merge,
        path_merge=path_merge,
        word_bonus=bonus,
        closed_lexicon=words == "closed",
        hotwords=("cab", "a b") if words == "hot" else (),
    )
    got = decoder.decode(
        line, dataclasses.replace(options, token_threshold=threshold, hard_token_threshold=True)
    )
    out = (line < threshold) & (line < line.max(axis=1, keepdims=True))
    impossible = np.where(out, -np.inf, line).astype(np.float32)
    expected = decoder.decode(impossible, dataclasses.replace(options, token_threshold=UNLIMITED))
    assert_same_readings(got, expected)


def test_a_prefix_that_moved_on_may_gain_what_a_new_one_may() -> None:
    # Behind "a" a comma ends two tokens, behind nothing one: what a prefix may gain is known anew when it moves on.
    line = np.full((2, 3), -20.0, np.float32)
    line[0, 1] = 0.0
    line[1] = [-0.01, -20.0, -4.5]
    options = BeamSearchOptions(
        hard_token_threshold=True, token_threshold=-5.0, beam_threshold=-1.0, word_bonus=3.0
    )
    assert CtcBeamSearchDecoder(["", "a", ","], lexicon=["a", ","], options=options).decode_text(line) == "a,"


@settings(max_examples=150, **ANY)
@given(
    seed=st.integers(0, 2**31),
    labels=st.sampled_from([2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 79, 80]),
    threshold=st.sampled_from([-0.5, -2.0, -5.0]),
    temperature=st.sampled_from([0.7, 1.0, 1.7]),
    masked=st.booleans(),
    offset=st.sampled_from([0.0, -40.0, 300.0]),
)
def test_text_alone_needs_no_scale(
    seed: int, labels: int, threshold: float, temperature: float, masked: bool, offset: float
) -> None:
    # Frames in which one label counts are not normalised where nobody asks for scores.
    line = noisy_line(seed, labels)
    decoder = CtcBeamSearchDecoder(MANY[:labels])
    options = BeamSearchOptions(
        input="logits",
        token_threshold=threshold,
        hard_token_threshold=True,
        temperature=temperature,
        character_bonus=0.2,
        allowed_characters="".join(MANY[1 : 1 + labels // 2]) if masked else None,
    )
    logits = (line + offset).astype(np.float32)
    assert decoder.decode_text(logits, options) == decoder.decode(logits, options)[0].text


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("hotwords", [(), ("cab", "a b")])
def test_text_alone_and_warm_caches_change_nothing(
    lines: Lines,
    word_model: NgramLanguageModel,
    character_model: NgramLanguageModel,
    merge: bool,
    hotwords: tuple[str, ...],
) -> None:
    def fresh() -> CtcBeamSearchDecoder:
        return CtcBeamSearchDecoder(LABELS, word_model=word_model, character_model=character_model, threads=2)

    warm = fresh()
    base = BeamSearchOptions(merge_histories=merge, hotwords=hotwords, beam_width=15, alternatives=15)
    figures = {"word_bonus": -2.5, "figures_weight": 0.2}
    for changes in ({}, {"sentence_end": True}, {"word_bonus": 2.5}, {"open_unknown_penalty": 6.0}, figures):
        options = dataclasses.replace(base, **changes)
        found = [warm.decode(line, options) for line in lines]
        assert [warm.decode_text(line, options) for line in lines] == [h[0].text for h in found]
        assert warm.decode_text_batch(lines, options) == [h[0].text for h in found]
        assert fresh().decode(lines[-1], options) == found[-1]


@pytest.mark.parametrize(
    ("frames", "options", "text"),
    [
        # The end of the line ends two words.
        ([{"a": 1.0}, {"": 0.7, "'": 0.3}], {"word_bonus": 3.0}, "a'"),
        # What the end of a word costs, the end of a number does not.
        ([{"a": 0.7, "1": 0.3}], {"word_bonus": -3.0, "figures_weight": 0.0}, "1"),
        # An unknown word gets back what it has paid too much while it was open.
        ([{"a": 0.1, "b": 0.9}], {"unknown_word_penalty": 1.0, "open_unknown_penalty": 6.0}, "b"),
    ],
)
def test_text_alone_knows_what_the_end_of_the_line_adds(
    frames: list[dict[str, float]], options: dict[str, Any], text: str
) -> None:
    line = np.full((len(frames), len(LABELS)), -np.inf, np.float32)
    for row, frame in zip(line, frames, strict=True):
        for label, probability in frame.items():
            row[LABELS.index(label)] = np.log(probability)
    decoder = CtcBeamSearchDecoder(LABELS, lexicon=["a", "'"])
    given = BeamSearchOptions(**{"word_bonus": 0.0, **options})
    assert decoder.decode_text(line, given) == decoder.decode(line, given)[0].text == text


def test_a_label_far_below_changes_nothing(lines: Lines) -> None:
    # Below e^-80 of the best label a row is worked out in double precision.
    options = BeamSearchOptions(alternatives=5)
    for far in (-500.0, -np.inf):
        for line in lines[:10]:
            wide = np.concatenate([line, np.full((len(line), 1), far, np.float32)], axis=1)
            a = CtcBeamSearchDecoder(LABELS, options=options).decode(line)
            b = CtcBeamSearchDecoder([*LABELS, "z"], options=options).decode(wide)
            assert [h.text for h in a] == [h.text for h in b]
            assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-4)


def test_equal_scores_do_not_widen_the_beam() -> None:
    line = np.full((40, 9), -np.log(9.0), np.float32)
    options = BeamSearchOptions(beam_width=7, beam_threshold=UNLIMITED, alternatives=1000)
    assert len(CtcBeamSearchDecoder(LABELS, options=options).decode(line)) <= 7


@settings(max_examples=60, **ANY)
@given(seed=st.integers(0, 2**31), hotwords=st.booleans())
def test_a_lexicon_of_more_characters_than_have_a_bit_of_their_own(seed: int, hotwords: bool) -> None:
    # Of 79 characters 63 have one.
    rng = np.random.default_rng(seed)
    weights = rng.permutation(1.0 / np.arange(1, len(MANY)))
    drawn = rng.choice(np.arange(1, len(MANY)), size=(150, 3), p=weights / weights.sum())
    words = {"".join(MANY[label] for label in word) for word in drawn}
    options = BeamSearchOptions(
        closed_lexicon=True,
        word_bonus=0.0,
        unknown_word_penalty=0.0,
        beam_threshold=-100.0,
        token_threshold=-100.0,
    )
    if hotwords:  # a hotword is a known word, too
        decoder = CtcBeamSearchDecoder(MANY, lexicon=[MANY[1]], options=options)
        options = dataclasses.replace(options, hotwords=tuple(words), hotword_boost=0.0)
    else:
        decoder = CtcBeamSearchDecoder(MANY, lexicon=sorted(words), options=options)
    for _ in range(10):
        # Three characters, each with three readings; between them blanks for sure.
        frames = np.full((6, len(MANY)), -1000.0, np.float32)
        frames[1::2, 0] = 0.0
        readings = [rng.choice(np.arange(1, len(MANY)), 3, replace=False) for _ in range(3)]
        if rng.random() < 0.8:  # else hardly any reading is a word
            for labels, label in zip(readings, drawn[rng.integers(len(drawn))], strict=True):
                if label not in labels:
                    labels[rng.integers(3)] = label
        for place, labels in enumerate(readings):
            frames[2 * place, labels] = np.log([0.5, 0.3, 0.2])
        spelt = {
            "".join(MANY[labels[i]] for labels, i in zip(readings, choice, strict=True)): float(
                np.prod([(0.5, 0.3, 0.2)[i] for i in choice])
            )
            for choice in itertools.product(range(3), repeat=3)
        }
        known = {text: share for text, share in spelt.items() if text in words}
        best = decoder.decode(frames, options)[0]
        if known:
            assert known[best.text] == pytest.approx(max(known.values()))
            assert best.acoustic_score == pytest.approx(np.log(known[best.text]), abs=1e-4)
        else:
            assert best.text == ""
