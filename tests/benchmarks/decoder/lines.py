"""The lines that decoders are compared on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Lines:
    """Network outputs, (T, V) natural log-probabilities each, and what the lines say."""

    labels: list[str]
    log_probs: list[NDArray[np.float32]]
    texts: list[str]

    @classmethod
    def load(cls, path: Path) -> Lines:
        """Reads an archive with `log_probs` (sum of T, V), `starts` (L + 1,), `text` (L,), `labels` (V,)."""
        with np.load(path) as archive:
            values = archive["log_probs"].astype(np.float32)
            starts = archive["starts"]
            parts = [np.ascontiguousarray(values[a:b]) for a, b in itertools.pairwise(starts)]
            return cls(
                [str(label) for label in archive["labels"]], parts, [str(text) for text in archive["text"]]
            )

    def first(self, count: int) -> Lines:
        """The first `count` lines."""
        return Lines(self.labels, self.log_probs[:count], self.texts[:count])

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def mean_frames(self) -> float:
        """Mean number of frames of a line."""
        return float(np.mean([len(line) for line in self.log_probs]))
