"""The real server with a network that waits instead of computing, so that several workers fit on one core.

``python -m benchmarks.scale.timed_server SECONDS_A_PIXEL SHARE ...``: alone a line takes SECONDS_A_PIXEL times its
width; in a batch the longest counts, and every further line adds SHARE of that. The rest are the server's arguments.
Everything else is the server's own: gRPC, queue, batcher, image decoding and beam search.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longhand_server import __main__ as server
from longhand_server.runtime import OnnxLineModel


def main() -> int:
    """Runs the server; returns its exit code."""
    seconds_a_pixel, share = map(float, sys.argv[1:3])
    sys.argv[1:3] = []
    compute = OnnxLineModel.log_probs

    def wait(self: OnnxLineModel, images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        longest = max(image.shape[1] for image in images)
        until = time.perf_counter() + longest * seconds_a_pixel * (1 + share * (len(images) - 1))
        answers = compute(self, images)
        time.sleep(max(0.0, until - time.perf_counter()))
        return answers

    OnnxLineModel.log_probs = wait  # type: ignore[method-assign]
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
