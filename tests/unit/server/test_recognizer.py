"""The recogniser's own part: which settings a request's search gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.toy_model import write_bundle
from longhand_server.bundle import load_bundle
from longhand_server.image import LineImage
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import load_line_model


def confidence(log_probs: NDArray[np.float32], options: RecognitionOptions, directory: Path) -> float:
    """Of a recogniser whose model was tuned to a temperature of 4."""
    bundle = load_bundle(write_bundle(directory, decoder={"temperature": 4.0}))
    recognizer = Recognizer(bundle, load_line_model(bundle, "cpu"))
    image = LineImage(np.zeros((64, 4 * len(log_probs)), np.float32), 100, 64, 0.0, 1.0, False)
    return recognizer.transcribe([image], [log_probs], 0.0, [options])[0].confidence


@pytest.mark.parametrize(
    "options",
    [
        RecognitionOptions(greedy=True),
        RecognitionOptions(greedy=True, allowed_characters="ab"),
        RecognitionOptions(greedy=True, temperature=1.0),
    ],
)
def test_greedy_confidences_are_the_network_s_own(options: RecognitionOptions, tmp_path: Path) -> None:
    frames = np.full((3, 7), 1e-9, np.float32)  # blank and six characters
    frames[[0, 1, 2], [1, 0, 2]] = 0.9, 1.0, 0.6
    frames[[0, 2], [2, 1]] = 0.1, 0.4
    log_probs = np.log(frames / frames.sum(axis=1, keepdims=True))
    wanted = 0.9 * 0.6
    assert confidence(log_probs, options, tmp_path / "one") == pytest.approx(wanted, rel=1e-4)
    flat = replace(options, temperature=4.0)
    assert confidence(log_probs, flat, tmp_path / "two") < 0.8 * wanted
