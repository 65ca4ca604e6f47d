"""How sure the beam is of characters and words, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from longhand_decoder import UNLIMITED, BeamSearchOptions, CtcBeamSearchDecoder

LABELS = ["", *"abcdxyz "]


@pytest.mark.parametrize(
    ("frames", "text", "characters", "words"),
    [
        # What stands before and behind a word is no part of it, unless it is a letter.
        ([{"a": 1.0}, {"b": 1.0}, {"": 0.5, "c": 0.3, " ": 0.2}], "ab", [1.0, 1.0], [0.7]),
        ([{"": 0.5, "c": 0.3, " ": 0.2}, {"a": 1.0}, {"b": 1.0}], "ab", [1.0, 1.0], [0.7]),
        # Inside a word everything counts: another letter, one more, a space.
        ([{"a": 1.0}, {"b": 0.6, "c": 0.4}, {"a": 1.0}], "aba", [1.0, 0.6, 1.0], [0.6]),
        ([{"a": 1.0}, {"": 0.6, "c": 0.4}, {"b": 1.0}], "ab", [1.0, 1.0], [0.6]),
        ([{"a": 1.0}, {"": 0.6, "c": 0.4}, {"": 0.6, " ": 0.4}, {"b": 1.0}], "ab", [1.0, 1.0], [0.36]),
        ([{"a": 1.0}, {" ": 0.6, "": 0.4}, {"b": 1.0}], "a b", [1.0, 0.6, 1.0], [0.6, 0.6]),
        # Between two differences the texts may be shifted; "b" is in its place all the same.
        (
            [{"x": 0.7, "z": 0.3}, {"": 0.6, "d": 0.4}, {"b": 1.0}, {"y": 0.7, "c": 0.3}],
            "xby",
            [0.7, 1.0, 0.7],
            [0.7 * 0.6 * 0.7],
        ),
        (
            [{"x": 0.7, "z": 0.3}, {"d": 0.6, "": 0.4}, {"b": 1.0}, {"y": 0.7, "c": 0.3}],
            "xdby",
            [0.7, 0.6, 1.0, 0.7],
            [0.7 * 0.6 * 0.7],
        ),
        (
            [{"a": 1.0}, {"x": 0.7, "z": 0.3}, {" ": 1.0}, {"b": 1.0}, {" ": 1.0}, {"y": 0.7, "c": 0.3}],
            "ax b y",
            [1.0, 0.7, 1.0, 1.0, 1.0, 0.7],
            [0.7, 1.0, 0.7],
        ),
        # Of two places for one character it has one.
        ([{"a": 1.0}, {"a": 0.6, "": 0.4}], "aa", [1.0, 0.6], [0.6]),
    ],
)
def test_shares_of_the_beam_that_agree(
    frames: list[dict[str, float]], text: str, characters: list[float], words: list[float]
) -> None:
    line = np.full((2 * len(frames), len(LABELS)), -np.inf, np.float32)
    line[1::2, 0] = 0.0  # a sure blank behind each, so that each choice is one of its own
    for i, frame in enumerate(frames):
        for label, probability in frame.items():
            line[2 * i, LABELS.index(label)] = np.log(probability)
    options = BeamSearchOptions(beam_threshold=UNLIMITED, token_threshold=-50.0)
    best = CtcBeamSearchDecoder(LABELS, options=options).decode(line)[0]
    assert best.text == text
    assert [span.confidence for span in best.characters] == pytest.approx(characters)
    assert [span.confidence for span in best.words] == pytest.approx(words)


def test_what_the_greedy_path_says() -> None:
    frames = [("a", 0.6), ("a", 0.8), ("a", 0.7), ("", 0.9), ("b", 0.5), (" ", 0.9), ("c", 0.6)]
    line = np.full((len(frames), len(LABELS)), -np.inf, np.float32)
    for row, (label, probability) in zip(line, frames, strict=True):
        row[LABELS.index("d")] = np.log(1 - probability) - 0.01
        row[LABELS.index(label)] = np.log(probability)
    best = CtcBeamSearchDecoder(LABELS).decode_greedy(line)
    characters = [(span.text, span.first_frame, span.last_frame) for span in best.characters]
    assert characters == [("a", 0, 2), ("b", 4, 4), (" ", 5, 5), ("c", 6, 6)]
    assert [span.confidence for span in best.characters] == pytest.approx([0.8, 0.5, 0.9, 0.6])
    assert [span.text for span in best.words] == ["ab", "c"]
    assert [span.confidence for span in best.words] == pytest.approx([0.4, 0.6])
    assert best.confidence == pytest.approx(0.8 * 0.5 * 0.9 * 0.6)
    path = sum(np.log(probability) for _, probability in frames)
    assert [best.score, best.acoustic_score] == pytest.approx([path, path], abs=1e-5)
    # The same as logits at another temperature: their softmax does not sum up the 0.01 that was taken off above.
    logits = BeamSearchOptions(input="logits", temperature=2.0)
    exact = line - np.log(np.exp(line).sum(axis=1, keepdims=True))
    scaled = CtcBeamSearchDecoder(LABELS).decode_greedy(2 * line + 1, logits)
    assert scaled.text == best.text
    assert scaled.acoustic_score == pytest.approx(exact.max(axis=1).sum(), abs=1e-5)
