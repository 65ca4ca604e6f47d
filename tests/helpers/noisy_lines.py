"""Lines of network output of all kinds, for tests of the beam search that Hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck
from numpy.typing import NDArray

LABELS = ["", "a", "b", "c", " ", "'", ",", "1", "é"]
MANY = ["", *(chr(0x4E00 + i) for i in range(79))]
ANY: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def noisy_line(seed: int, labels: int, frames: int = 30) -> NDArray[np.float32]:
    """Frames sure of a blank, frames sure of a character, and frames that are not."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.choice([1.0, 2.0, 4.0]), size=(frames, labels))
    logits[rng.random(frames) < 0.5, 0] += 12.0
    sure = rng.random(frames) < 0.2
    logits[sure, rng.integers(0, labels, size=frames)[sure]] += 10.0
    log_probs: NDArray[np.float32] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs.astype(np.float32)
