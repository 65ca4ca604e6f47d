"""Best-path reading with the PyTorch network: what validation during training needs, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from longhand_server.alphabet import Alphabet
from longhand_server.network import LineNetwork


def greedy_texts(
    network: LineNetwork,
    images: Sequence[NDArray[np.float32]],
    alphabet: Alphabet,
    device: torch.device,
) -> list[str]:
    """Reads each (H, W) line by the best label of each frame, repeats merged, blanks dropped."""
    texts = []
    with torch.inference_mode():
        for image in images:
            batch = torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device)
            best = network(batch)[0].argmax(-1).tolist()
            kept = [b for a, b in zip([0, *best], best, strict=False) if b and b != a]
            texts.append(alphabet.decode(kept).strip())
    return texts
