"""Where the characters stand, against a Viterbi search that gives nothing up."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, Hypothesis

LABELS = ["", "a", "b", " "]


def path_of(hypothesis: Hypothesis, frames: int) -> list[int]:
    """The label of each frame, as the hypothesis says."""
    path = [0] * frames
    for span in hypothesis.characters:
        path[span.first_frame : span.last_frame + 1] = [LABELS.index(span.text)] * (
            span.last_frame + 1 - span.first_frame
        )
    return path


def best_path_score(log_probs: NDArray[np.float64], text: str) -> float:
    """The most probable path that spells the text (Viterbi over all states)."""
    states = [0]
    for character in text:
        states += [LABELS.index(character), 0]
    scores = np.full(len(states), -np.inf)
    scores[:2] = log_probs[0, states[:2]]
    for row in log_probs[1:]:
        before = scores.copy()
        for state, label in enumerate(states):
            ways = [before[state]]
            if state >= 1:
                ways.append(before[state - 1])
            if state >= 2 and label not in (0, states[state - 2]):
                ways.append(before[state - 2])
            scores[state] = max(ways) + row[label]
    return float(max(scores[-2:]))


def noisy_line(seed: int) -> NDArray[np.float32]:
    """Long stretches of one label each, with leaks of others that put characters into the beam early."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(int(rng.integers(1, 7))):
        label, leak = int(rng.integers(0, 4)), float(10.0 ** -rng.uniform(0.5, 5))
        row = np.full(4, leak / 3)
        row[label] = 1.0 - leak
        rows += [row * np.exp(rng.normal(scale=0.3, size=4)) for _ in range(int(rng.integers(1, 70)))]
    table = np.array(rows)
    return np.asarray(np.log(table / table.sum(axis=1, keepdims=True)), np.float32)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31))
@example(20618755)  # the best path is more than Aligner's kFarBehind behind on its way
def test_places_are_those_of_the_best_path(seed: int) -> None:
    line = noisy_line(seed)
    options = BeamSearchOptions(alternatives=5, character_bonus=1.0)
    for hypothesis in CtcBeamSearchDecoder(LABELS, options=options).decode(line):
        path = path_of(hypothesis, len(line))
        score = sum(float(line[frame, label]) for frame, label in enumerate(path))
        assert score == pytest.approx(best_path_score(line.astype(np.float64), hypothesis.text), abs=1e-2)


def test_a_long_margin_before_the_text() -> None:
    line = np.full((106, 4), 1e-5)
    line[:, 0] = 0.999
    line[1, 1] = line[2, 2] = 0.01  # what puts "a" and "ab" into the beam
    line[101, 1] = line[103, 2] = 0.99
    line[101, 0] = line[103, 0] = 0.001
    log_probs = np.log(line / line.sum(axis=1, keepdims=True)).astype(np.float32)
    best = CtcBeamSearchDecoder(LABELS).decode(log_probs)[0]
    assert [(span.text, span.first_frame, span.last_frame) for span in best.characters] == [
        ("a", 101, 101),
        ("b", 103, 103),
    ]


def test_a_path_that_is_too_unlikely_for_single_precision() -> None:
    line = np.full((4, 4), -3e38, np.float32)
    line[:, 0] = 0.0
    options = BeamSearchOptions(token_threshold=-np.inf, beam_threshold=-np.inf, alternatives=50)
    for hypothesis in CtcBeamSearchDecoder(LABELS, options=options).decode(line):
        frames = [(span.first_frame, span.last_frame) for span in hypothesis.characters]
        assert all(0 <= first <= last < len(line) for first, last in frames)
        assert frames == sorted(frames)


def test_frames_that_tell_nothing_take_no_memory_by_the_square() -> None:
    frames = 40_000
    program = f"""
import resource, numpy as np
from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder
line = np.full(({frames}, 3), np.log(1 / 3), np.float32)
decoder = CtcBeamSearchDecoder(["", "a", "b"], options=BeamSearchOptions(beam_width=2, character_bonus=2.0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best = decoder.decode(line)[0]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(best.text), best.characters[0].first_frame, best.characters[-1].last_frame, grown // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    length, first, last, megabytes = map(int, ran.stdout.split())
    assert length > frames / 3
    assert 0 <= first <= last < frames
    assert megabytes < 500
