"""Small language models and noisy lines that the decoder's tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.tiny_ngram import random_ngram
from longhand_decoder import NgramLanguageModel

LABELS = ["", "a", "b", "c", " ", "'", ",", "1", "é"]


@pytest.fixture(scope="session")
def word_arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["a", "b", "ab", "cab", "abc", "bé", "a'b", ",", "1"]
    return random_ngram(words, 3, 5).write_arpa(tmp_path_factory.mktemp("models") / "word.arpa")


@pytest.fixture(scope="session")
def character_arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    characters = ["a", "b", "c", "\u2581", "'", ",", "1", "é"]
    return random_ngram(characters, 4, 6).write_arpa(tmp_path_factory.mktemp("models") / "character.arpa")


@pytest.fixture(scope="session")
def word_model(word_arpa: Path) -> NgramLanguageModel:
    return NgramLanguageModel(word_arpa)


@pytest.fixture(scope="session")
def character_model(character_arpa: Path) -> NgramLanguageModel:
    return NgramLanguageModel(character_arpa)


@pytest.fixture(scope="session")
def lines() -> list[NDArray[np.float32]]:
    """Forty lines of 1 to 80 frames, mostly blank, unsure about most characters."""
    rng = np.random.default_rng(11)
    found = []
    for frames in rng.integers(1, 80, size=40):
        logits = rng.normal(scale=2.0, size=(frames, len(LABELS)))
        logits[rng.random(frames) < 0.5, 0] += 6.0
        found.append((logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32))
    return found
