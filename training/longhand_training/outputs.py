"""What a bundle's network puts out for labelled lines, in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longhand_server.bundle import ModelBundle
from longhand_server.runtime import LineModel, load_line_model
from longhand_training.dataset import Sample
from longhand_training.progress import counted

# Lines that the network is given at once.
_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class LineOutputs:
    """Network outputs of a set of lines.

    Attributes:
        labels: (V,) text of each label, the blank's being "".
        log_probs: one (T, V) float32 array of natural-log probabilities a line.
        texts: the references.
    """

    labels: tuple[str, ...]
    log_probs: list[NDArray[np.float32]]
    texts: list[str]

    def save(self, path: Path) -> None:
        """Writes a NumPy archive: ``log_probs`` (sum of T, V), ``starts`` (L + 1,), ``text``, ``labels``."""
        starts = np.cumsum([0, *(len(p) for p in self.log_probs)])
        np.savez(
            path,
            log_probs=np.concatenate(self.log_probs),
            starts=starts,
            text=np.array(self.texts),
            labels=np.array(self.labels),
        )

    @classmethod
    def load(cls, path: Path) -> LineOutputs:
        """Reads such an archive.

        Raises:
            ValueError: not such an archive.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                starts = content["starts"]
                every = content["log_probs"].astype(np.float32, copy=False)
                parts = [every[a:b] for a, b in pairwise(starts)]
                labels = tuple(str(label) for label in content["labels"])
                return cls(labels, parts, [str(text) for text in content["text"]])
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: not an archive of network outputs: {error}") from error


def compute_outputs(
    bundle: ModelBundle, samples: Sequence[Sample], model: LineModel | None = None
) -> LineOutputs:
    """Runs the bundle's network over normalised lines, some at a time, with progress on a terminal.

    Args:
        bundle: whose alphabet it is.
        samples: the lines.
        model: its network, loaded; None for the one that a CPU is served with.
    """
    model = model or load_line_model(bundle, "cpu")
    log_probs: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.float32]] = []
    for sample in counted(samples, "lines through the network"):
        waiting.append(sample.pixels)
        if len(waiting) == _TOGETHER:
            log_probs += model.log_probs(waiting)
            waiting = []
    if waiting:
        log_probs += model.log_probs(waiting)
    return LineOutputs(bundle.alphabet.labels, log_probs, [sample.text for sample in samples])
