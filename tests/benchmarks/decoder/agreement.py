"""Where `build_ctcdecoder` and pyctcdecode read a line differently at pyctcdecode's settings, and why.

    python tests/benchmarks/decoder/agreement.py --lines build/bench-decoder/lines.npz \
        --word-model build/bench-decoder/spaces.klm --unigrams build/bench-decoder/spaces.unigrams

(`make bench-decoder` makes these files.) Lines that differ are read again by both with a beam that prunes
next to nothing. Texts that still differ are shown with what each decoder says of both: log P(text | line) and the
models' part.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lines import Lines

from longhand_decoder import build_ctcdecoder

HARDLY_PRUNED: dict[str, Any] = {"beam_width": 800, "beam_prune_logp": -20.0, "prune_history": False}


def best_scores(beams: Iterable[tuple[Any, ...]]) -> dict[str, tuple[float, float]]:
    """The acoustic score and the models' part of each text's best beam."""
    scores: dict[str, tuple[float, float]] = {}
    for text, *_, acoustic, total in beams:
        scores.setdefault(text, (float(acoustic), float(total - acoustic)))
    return scores


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--word-model", type=Path, required=True)
    parser.add_argument("--unigrams", type=Path, required=True)
    arguments = parser.parse_args()
    import pyctcdecode

    logging.disable(logging.WARNING)
    lines = Lines.load(arguments.lines)
    unigrams = arguments.unigrams.read_text().split("\n")
    decoders = {
        "longhand_decoder": build_ctcdecoder(lines.labels, arguments.word_model, unigrams),
        "pyctcdecode": pyctcdecode.build_ctcdecoder(lines.labels, str(arguments.word_model), unigrams),
    }
    different = [
        line for line in lines.log_probs if len({decoder.decode(line) for decoder in decoders.values()}) > 1
    ]
    print(f"{len(lines) - len(different)} of {len(lines)} texts are the same")
    still = 0
    for line in different:
        scores = {
            name: best_scores(decoder.decode_beams(line, **HARDLY_PRUNED))
            for name, decoder in decoders.items()
        }
        texts = list(dict.fromkeys(next(iter(found)) for found in scores.values()))
        if len(texts) == 1:
            continue
        still += 1
        for text in texts:
            print(repr(text))
            for name, found in scores.items():
                acoustic, models = found.get(text, (math.nan, math.nan))
                print(f"    {name:<16} acoustic {acoustic:8.2f}  models {models:8.2f}")
    print(f"{still} of the other {len(different)} differ with {HARDLY_PRUNED}, too")


if __name__ == "__main__":
    main()
