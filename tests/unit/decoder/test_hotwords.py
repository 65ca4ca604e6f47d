"""Hotwords that have begun: what their prefixes get on credit must not cost other texts their place in the beam."""

from __future__ import annotations

import numpy as np
import pytest

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder

LABELS = ["", "a", "b", "c", "d"]
SURE_A = {"a": 1.0}
SURE_D = {"d": 1.0}
C_OR_B = {"c": 0.6, "b": 0.4}


def read(*frames: dict[str, float], hotword: str, hard: bool) -> str:
    line = np.full((len(frames), len(LABELS)), -np.inf, np.float32)
    for row, frame in zip(line, frames, strict=True):
        for label, probability in frame.items():
            row[LABELS.index(label)] = np.log(probability)
    options = BeamSearchOptions(hotwords={hotword: 20.0}, beam_threshold=-6.0, hard_token_threshold=hard)
    return CtcBeamSearchDecoder(LABELS).decode(line, options)[0].text


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    "between",
    [
        [],  # the hotword begins with a new character ...
        [SURE_A],  # ... goes on with one that every text has ...
        [{"": 0.5, "a": 0.5}],  # ... and waits
    ],
    ids=["begins", "goes on", "waits"],
)
def test_a_hotword_that_comes_to_nothing_leaves_the_likelier_text(
    between: list[dict[str, float]], hard: bool
) -> None:
    hotword = "b" + "a" * len(between) + "c"
    text = read(C_OR_B, *between, SURE_D, hotword=hotword, hard=hard)
    assert text.replace("a", "") == "cd"


def test_a_hotword_that_is_complete_wins() -> None:
    assert read(C_OR_B, SURE_A, {"d": 0.99, "c": 0.01}, hotword="bac", hard=False) == "bac"
