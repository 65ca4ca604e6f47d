"""Where the words of scanned training lines lie: ``python -m longhand_training.word_cuts MODEL --out cuts.json``.

A model that reads the lines already is aligned with their labels (the best CTC path that writes the label), and the
space between two words is cut where there is least ink. Training then makes new lines from the words of a
page (:mod:`longhand_training.scan_words`). A line that the model reads as something quite different has a wrong
label, presumably, and is marked: training leaves it out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longhand_decoder import CtcBeamSearchDecoder
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.errors import InvalidImageError, InvalidModelError
from longhand_server.image import LineImage, normalise_line
from longhand_server.runtime import load_line_model
from longhand_training.command_line import HelpFormatter, add_own_lines, exit_status, refuse_parts_of_nothing
from longhand_training.dataset import fits
from longhand_training.iam import IAM_TRAINING
from longhand_training.line_sets import iam_lines, own_lines
from longhand_training.metrics import edit_distance
from longhand_training.packs import SCAN_PACKS, LabelledImage, read_tar, refuse_shared_names
from longhand_training.progress import counted

# A label of which more than this part is read otherwise belongs to another line; short ones may be just hard to read.
_FOREIGN = 0.6
_SHORTEST_JUDGED = 8


def align(log_probs: NDArray[np.float32], labels: Sequence[int]) -> list[int]:
    """The frame of each label on the best CTC path that writes them (Viterbi; its most probable frame, if several).

    Args:
        log_probs: (T, V), label 0 the blank.
        labels: (L,), L of at least 1; T must be enough to write them.
    """
    states = np.zeros(2 * len(labels) + 1, np.intp)
    states[1::2] = labels
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]]
    steps = np.zeros((len(log_probs), len(states)), np.intp)
    never = np.array([-np.inf, -np.inf])
    for frame, row in enumerate(log_probs[1:], 1):
        one, two = np.concatenate([never[:1], score[:-1]]), np.concatenate([never, score[:-2]])
        ways = np.stack([score, one, np.where(may_skip, two, -np.inf)])
        steps[frame] = ways.argmax(0)
        score = ways.max(0) + row[states]
    state = len(states) - 1 if score[-1] > score[-2] else len(states) - 2
    best = [(-np.inf, 0)] * len(labels)
    for frame in range(len(log_probs) - 1, -1, -1):
        if state % 2:
            best[state // 2] = max(best[state // 2], (float(log_probs[frame, states[state]]), frame))
        state -= int(steps[frame, state])
    return [frame for _, frame in best]


def cut_line(
    image: LineImage,
    text: str,
    log_probs: NDArray[np.float32],
    alphabet: Alphabet,
    decoder: CtcBeamSearchDecoder,
) -> list[int] | None:
    """X in px of the sent image, between each two words of the text; None where text and image do not fit.

    Args:
        image: the normalised line.
        text: words parted by single spaces.
        log_probs: (T, V) of the line.
        alphabet: of the network.
        decoder: one for that alphabet; it reads greedily.
    """
    if image.is_blank or not fits(image.pixels.shape[1], text):
        return None
    read = decoder.decode_greedy(log_probs).text.strip()
    if len(text) >= _SHORTEST_JUDGED and edit_distance(text, read) > _FOREIGN * len(text):
        return None
    frames = align(log_probs, alphabet.encode(text))
    stride = image.pixels.shape[1] / len(log_probs)
    ink = np.convolve(image.pixels.sum(0), np.ones(3), "same")
    cuts = []
    for at in (i for i, character in enumerate(text) if character == " "):
        before, space, after = (round((frames[i] + 0.5) * stride) for i in (at - 1, at, at + 1))
        left, right = (before + space) // 2, (space + after) // 2 + 1
        least = np.flatnonzero(ink[left:right] <= ink[left:right].min() + 1e-3)
        cuts.append(round(image.to_source_x(left + int(least[len(least) // 2]))))
    return cuts


def cut_words(bundle: ModelBundle, images: Sequence[LabelledImage]) -> dict[str, list[int] | None]:
    """:func:`cut_line` for each image; those are left out that cannot be decoded or hold foreign characters."""
    model = load_line_model(bundle, "cpu")
    decoder = CtcBeamSearchDecoder(bundle.alphabet.labels)
    cuts: dict[str, list[int] | None] = {}
    for item in counted(images, "lines cut"):
        if all(character in bundle.alphabet for character in item.text):
            try:
                line = normalise_line(item.grey(), bundle.line)
            except InvalidImageError:
                continue
            log_probs = model.log_probs([line.pixels])[0]
            cuts[item.name] = cut_line(line, item.text, log_probs, bundle.alphabet, decoder)
    return cuts


@exit_status("word_cuts", ValueError, OSError, InvalidModelError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a model that reads such lines")
    parser.add_argument("--data", type=Path, help="folder with the packs")
    add_own_lines(parser, IAM_TRAINING)
    parser.add_argument("--out", type=Path, required=True, help="file to write (JSON)")
    options = parser.parse_args()
    refuse_parts_of_nothing(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle(options.bundle)
    images = [image for folder in options.folder for image, _ in own_lines(folder)]
    if options.iam is not None:
        images += iam_lines(options.iam, options.iam_ids)
    for name in SCAN_PACKS if options.data is not None else ():
        images += read_tar(options.data / name, "train")
    if not images:
        raise ValueError("nothing to cut: name --data, --folder or --iam")
    refuse_shared_names(images)
    cuts = cut_words(bundle, images)
    options.out.write_text(json.dumps(cuts), "utf-8")
    wrong = [name for name, places in cuts.items() if places is None]
    names = f": {', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}" if wrong else ""
    print(f"{len(cuts) - len(wrong)} lines cut into words; {len(wrong)} whose label does not fit{names}")
    if left_out := len({image.name for image in images}) - len(cuts):
        print(f"{left_out} lines left out: damaged, or with characters that the model does not write")


if __name__ == "__main__":
    sys.exit(main())
