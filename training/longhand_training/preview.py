"""A contact sheet of training lines: do they look like handwriting?

``python -m longhand_training.preview --data ../shared/data --fonts DIR --out preview.png``, with training's own
options for where lines come from; ``--data ../shared/data`` where none is named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from longhand_server.config import LineFormat
from longhand_server.image import normalise_line
from longhand_training.augment import augment_pixels
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import DATA, number
from longhand_training.line_sets import make_sources
from longhand_training.source_config import SourceConfig, add_source_options, refuse_unused


def contact_sheet(config: SourceConfig, count: int, seed: int, width: int = 700) -> NDArray[np.uint8]:
    """``count`` lines of the sources in turn: as made on the left, as the network sees them on the right."""
    rng = np.random.default_rng(seed)
    sources = make_sources(config)
    rows = [np.hstack([_caption(what, width) for what in ("as made", "as the network sees it")])]
    for i in range(count):
        name, _, make = sources[i % len(sources)]
        grey, text = make(rng)
        pixels = augment_pixels(normalise_line(grey, LineFormat()).pixels, rng)
        scale = 64 / grey.shape[0]
        made = cv2.resize(grey, (max(int(grey.shape[1] * scale), 1), 64), interpolation=cv2.INTER_AREA)
        seen = (255 - 255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        pair = np.hstack([_fitted(np.asarray(made, np.uint8), width), _fitted(seen, width)])
        rows += [_caption(f"{name}: {text}", pair.shape[1]), pair]
    return np.vstack(rows)


def _caption(text: str, width: int) -> NDArray[np.uint8]:
    label = Image.new("L", (width, 18), 225)
    # Pillow's own font has no accented letters.
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 12)
    ImageDraw.Draw(label).text((4, 1), text, fill=0, font=font)
    return np.asarray(label, np.uint8)


def _fitted(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The image in a frame of this width, smaller if it is wider."""
    rows, columns = image.shape
    if columns > width:
        size = (width, max(round(rows * width / columns), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    below, beside = rows - image.shape[0], width - image.shape[1]
    framed = cv2.copyMakeBorder(image, 1, 1 + below, 0, beside, cv2.BORDER_CONSTANT, value=128)
    return np.asarray(framed, np.uint8)


@exit_status("preview", ValueError, OSError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--lines", type=number(int, 1), default=40, help="(default: %(default)s)")
    parser.add_argument("--seed", type=number(int, 0), default=1, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="(default: %(default)s)")
    add_source_options(parser)
    options = parser.parse_args()
    if options.data is None and not options.folder and options.iam is None:
        options.data = DATA
    refuse_unused(options)
    config = SourceConfig.from_options(options)
    Image.fromarray(contact_sheet(config, options.lines, options.seed)).save(options.out)
    print(f"{options.lines} lines in {options.out}")


if __name__ == "__main__":
    sys.exit(main())
