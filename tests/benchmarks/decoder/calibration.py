"""How far confidences can be believed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from lines import Lines

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, Hypothesis
from longhand_training.metrics import expected_calibration_error


def word_outcomes(best: Sequence[Hypothesis], texts: Sequence[str]) -> tuple[list[float], list[bool]]:
    """The confidence of each word read, and whether the word is right (aligned with the reference)."""
    confidences: list[float] = []
    right: list[bool] = []
    for hypothesis, text in zip(best, texts, strict=True):
        words = [word.text for word in hypothesis.words]
        matched = [False] * len(words)
        matcher = difflib.SequenceMatcher(None, words, text.split(), autojunk=False)
        for block in matcher.get_matching_blocks():
            matched[block.a : block.a + block.size] = [True] * block.size
        confidences += [word.confidence for word in hypothesis.words]
        right += matched
    return confidences, right


def calibration_error(decoder: CtcBeamSearchDecoder, lines: Lines, options: BeamSearchOptions) -> float:
    """The expected calibration error of the words of all lines, in percent."""
    best = [hypotheses[0] for hypotheses in decoder.decode_batch(lines.log_probs, options)]
    return 100.0 * expected_calibration_error(*word_outcomes(best, lines.texts), bins=15)
