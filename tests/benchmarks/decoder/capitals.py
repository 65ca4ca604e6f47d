"""What `fold_capitals` does to lines in block capitals: handwriting fonts as worn ink on paper.

    python tests/benchmarks/decoder/capitals.py     (`make fonts` fetches the fonts)

The texts are those of IAM-OnDB's validation lines, in capitals and as they are, each in a font drawn by chance. The
network has seen these fonts in training, so the errors are few; what counts is how they compare.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from longhand_decoder import BeamSearchOptions
from longhand_server import bundle as bundles
from longhand_server.bundle import load_bundle
from longhand_server.image import normalise_line
from longhand_training.dataset import Sample, pen_lines
from longhand_training.evaluate import make_decoder
from longhand_training.fonts import FontBank
from longhand_training.ink import on_paper
from longhand_training.metrics import character_error_rate
from longhand_training.outputs import compute_outputs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path(bundles.__file__).parent / "models/en")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--fonts", type=Path, default=Path("runs/fonts"))
    parser.add_argument("--lines", type=int, default=300)
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    fonts = FontBank(arguments.fonts)
    _, pen = pen_lines(arguments.data)
    options = BeamSearchOptions(**bundle.decoder)
    for name, change in (("as they are", str), ("in capitals", str.upper)):
        samples = []
        for number, line in enumerate(pen[: arguments.lines]):
            rng = np.random.default_rng([5, number])
            text, mask = fonts.draw(change(line.line.text), rng)
            samples.append(Sample(normalise_line(on_paper(mask, rng), bundle.line).pixels, text))
        outputs = compute_outputs(bundle, samples)
        rates = []
        for setting in ("greedy", "word", "character", "both"):
            decoder = make_decoder(bundle, setting, threads=1)
            if setting == "greedy":
                texts = [[found.text.strip() for found in decoder.decode_greedy_batch(outputs.log_probs)]]
            else:
                texts = [
                    [
                        text.strip()
                        for text in decoder.decode_text_batch(
                            outputs.log_probs, replace(options, fold_capitals=fold)
                        )
                    ]
                    for fold in (False, True)
                ]
            errors = " -> ".join(f"{100 * character_error_rate(outputs.texts, read):.2f}" for read in texts)
            rates.append(f"{setting} {errors}")
        print(f"{len(samples)} lines {name}, CER in %, fold_capitals off -> on: {', '.join(rates)}")


if __name__ == "__main__":
    main()
