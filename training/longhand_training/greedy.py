"""Best-path reading with the PyTorch network: what validation during training needs, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longhand_server.alphabet import Alphabet
from longhand_server.network import LineNetwork, frame_count
from longhand_training.dataset import Sample, by_width, pad

# Lines times width; on a CPU one line at a time is fastest.
_GPU_BATCH_PIXELS = 32_000


def greedy_texts(
    network: LineNetwork, samples: Sequence[Sample], alphabet: Alphabet, device: torch.device
) -> list[str]:
    """Reads lines by the best label of each frame, repeats merged, blanks dropped."""
    texts: dict[int, str] = {}
    with torch.inference_mode():
        for group in by_width(samples, 1 if device.type == "cpu" else _GPU_BATCH_PIXELS):
            # Without their texts: those may have characters that the network cannot write.
            images, widths = pad(group)
            labels = network(images.to(device).float().mul_(1.0 / 255.0), widths).argmax(-1).tolist()
            for sample, width, row in zip(group, widths.tolist(), labels, strict=True):
                best = row[: frame_count(width)]
                kept = [b for a, b in zip([0, *best], best, strict=False) if b and b != a]
                texts[id(sample)] = alphabet.decode(kept).strip()
    return [texts[id(sample)] for sample in samples]
