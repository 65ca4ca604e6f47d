"""Trains the recogniser: ``python -m longhand_training.train --data ../shared/data --out runs/first``.

Stop it when you like (Ctrl-C and SIGTERM save, and end it with 130 and 143), and go on with the same command.
``--init`` fine-tunes: the weights it begins from are validated first, and are best.pt until others read better.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

from longhand_server.errors import InvalidModelError
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import TrainingConfig, number
from longhand_training.source_config import add_source_options

# glibc gives memory back after every step and takes page faults to get it again; keeping it saves 15 % of
# a CPU step (measured; see EXPERIMENTS.md). oneDNN and its wrapper remember what they have prepared, buffers and
# all, for a thousand shapes, and hardly any batch has the shape of another: gigabytes. All of it is read at start
# only, hence the re-execution.
_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
    "LRU_CACHE_CAPACITY": "16",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: checkpoints, logs, curves"
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--init", type=Path, help="checkpoint (.pt) or model folder to fine-tune from")
    begin.add_argument(
        "--characters",
        type=Path,
        help="UTF-8 text with every character that the network is to write (default: English, French and more)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:i]")
    parser.add_argument(
        "--threads", type=number(int, 0), default=0, help="CPU threads of the network; 0: all cores"
    )
    parser.add_argument("--workers", type=number(int, 0), default=1, help="processes that make lines")
    parser.add_argument(
        "--processes",
        type=number(int, 1),
        default=1,
        help="train in this many processes that share their gradients; on a CPU as many as cores, --threads 1",
    )
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--limit-minutes", type=number(float, 0), default=math.inf, help="end this piece of the run then"
    )
    add_source_options(parser)
    TrainingConfig.add_options(parser)
    return parser


@exit_status("train", ValueError, ArithmeticError, OSError, InvalidModelError)
def main() -> int:
    """Command line."""
    options = _parser().parse_args()
    if "MALLOC_MMAP_MAX_" not in os.environ and sys.platform == "linux":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "longhand_training.train", *sys.argv[1:]],
            {**_ENVIRONMENT, **os.environ},
        )
    # Imported late: PyTorch takes seconds, and neither --help nor the process that starts anew needs it.
    from longhand_training.piece import train

    return train(options)


if __name__ == "__main__":
    sys.exit(main())
