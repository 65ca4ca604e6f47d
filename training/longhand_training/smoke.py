"""Proves that training works: a tiny network learns 200 short lines by heart in under three minutes.

``python -m longhand_training.smoke --data ../shared/data`` ends with 1 when it does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.image import normalise_line
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import DATA, TrainingConfig, number
from longhand_training.dataset import Sample, by_width, collate, fits
from longhand_training.ink import draw_plain
from longhand_training.strokes import load_pen_lines
from longhand_training.text import DEFAULT_CHARACTERS
from longhand_training.trainer import Trainer

LINES = 200
# Half as high as lines are otherwise: a quarter of the work.
_LINE = LineFormat(height=32, margin=4)
_LONGEST = 12
# Small batches: many steps in a pass.
_BATCH_PIXELS = 1000
_GOOD_CER = 0.05


def short_lines(data: Path) -> list[Sample]:
    """The first 200 words of at most 12 letters of the pen lines, drawn plainly.

    Raises:
        ValueError: there are fewer, or the pen lines cannot be read.
    """
    training, _ = load_pen_lines(data / "iamondb_strokes.npz")
    samples: list[Sample] = []
    for pen in training:
        for word in pen.words:
            pixels = normalise_line(draw_plain(word, height=48), _LINE).pixels
            if 2 < len(word.text) <= _LONGEST and fits(pixels.shape[1], word.text):
                samples.append(Sample(pixels, word.text))
            if len(samples) == LINES:
                return samples
    raise ValueError(f"{data}: only {len(samples)} short lines, need {LINES}")


def learn_by_heart(samples: list[Sample], seconds: float) -> float:
    """Trains until the lines are known or the time is up; the CER on these very lines."""
    alphabet = Alphabet(DEFAULT_CHARACTERS)
    config = TrainingConfig(
        minutes=seconds / 60,
        learning_rate=4e-3,
        channels=(8, 16, 32, 64),
        blocks=(1, 1, 1),
        hidden=64,
        layers=1,
        shortcut_weight=0.3,
        dropout=0.0,
        ema=0.9,
    )
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(config, alphabet, torch.device("cpu"), Path(out))
        rng = np.random.default_rng(1)
        batches = [collate(batch, alphabet) for batch in by_width(samples, _BATCH_PIXELS)]
        started = time.monotonic()
        epoch, rate = 0, 1.0
        while trainer.seconds < seconds and rate > 0.5 * _GOOD_CER:
            losses = [trainer.train_batch(batches[i]) for i in rng.permutation(len(batches))]
            trainer.seconds = time.monotonic() - started
            epoch += 1
            if epoch % 5 == 0:
                rate = trainer.validate({"lines": samples})["lines"]
                print(
                    f"epoch {epoch}  loss {np.nanmean(losses):.3f}  CER {100 * rate:.1f} %"
                    f"  {time.monotonic() - started:.0f} s",
                    flush=True,
                )
    return rate


@exit_status("smoke", ValueError)
def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seconds", type=number(float, 1), default=160.0)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)  # more would mostly wait for one another
    samples = short_lines(options.data)
    rate = learn_by_heart(samples, options.seconds)
    good = rate <= _GOOD_CER
    print(f"{'learned' if good else 'NOT learned'}: CER {100 * rate:.1f} % on {LINES} lines known by heart")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
