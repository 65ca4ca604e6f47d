"""Draws a sample line: ``python -m longhand_training.sample "Some text." --font FILE.woff2 --out line.png``.

The repository's own sample comes from here: a sentence in a handwriting font (SIL Open Font License), worn and
put on paper by the same code that makes training lines. Real scans are not ours to ship.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from longhand_training.augment import elastic
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import number
from longhand_training.fonts import draw_text, open_font
from longhand_training.ink import on_paper


@exit_status("sample", ValueError, OSError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--font", type=Path, required=True, help="a font file: .woff2, .ttf or .otf")
    parser.add_argument("--seed", type=number(int, 0), default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    text, mask = draw_text(options.text, open_font(options.font), rng)
    if not text:
        raise ValueError(f"{options.font}: has none of the characters of {options.text!r}")
    Image.fromarray(elastic(on_paper(mask, rng), rng)).save(options.out)
    print(f"{options.out}: {text}")


if __name__ == "__main__":
    sys.exit(main())
