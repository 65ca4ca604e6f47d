"""How far confidences can be believed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
from lines import Lines
from numpy.typing import NDArray

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, Hypothesis


def word_outcomes(
    best: Sequence[Hypothesis], texts: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The confidence of each word read, and 1 where the word is right (aligned with the reference), else 0."""
    confidences: list[float] = []
    right: list[float] = []
    for hypothesis, text in zip(best, texts, strict=True):
        words = [word.text for word in hypothesis.words]
        matched = np.zeros(len(words))
        matcher = difflib.SequenceMatcher(None, words, text.split(), autojunk=False)
        for block in matcher.get_matching_blocks():
            matched[block.a : block.a + block.size] = 1.0
        confidences += [word.confidence for word in hypothesis.words]
        right += matched.tolist()
    return np.array(confidences), np.array(right)


def expected_calibration_error(
    confidences: NDArray[np.float64], right: NDArray[np.float64], bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over bins of confidence (Guo et al., 2017), in percent."""
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = place == b
        if inside.any():
            error += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
    return 100.0 * float(error)


def calibration_error(decoder: CtcBeamSearchDecoder, lines: Lines, options: BeamSearchOptions) -> float:
    """The calibration error of the words of all lines."""
    best = [hypotheses[0] for hypotheses in decoder.decode_batch(lines.log_probs, options)]
    return expected_calibration_error(*word_outcomes(best, lines.texts))
