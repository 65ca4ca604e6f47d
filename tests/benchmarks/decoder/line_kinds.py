"""How lines are read that are no running text: block capitals, dates, figures, codes, in handwriting fonts.

    python tests/benchmarks/decoder/line_kinds.py     (`make fonts` fetches the fonts)

Each line is set in a font drawn by chance, as worn ink on paper. The network has seen these fonts in training, so
what counts is how the errors compare: without language models, with the model's settings but for `fold_capitals` and
`figures_weight`, and with all of its settings.
"""

from __future__ import annotations

import argparse
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel
from longhand_server import bundle as bundles
from longhand_server.bundle import load_bundle
from longhand_server.image import normalise_line
from longhand_training.dataset import Sample
from longhand_training.fonts import FontBank
from longhand_training.ink import on_paper
from longhand_training.line_sets import pen_lines
from longhand_training.metrics import character_error_rate
from longhand_training.outputs import compute_outputs

_CHANCE = random.Random(3)
_NAMES = ("alice", "baker", "cloud", "jones", "london", "maria", "oak", "peter", "river", "smith")
_MONTHS = ("January", "March", "May", "July", "October", "December")


def _digits(count: int) -> str:
    return "".join(_CHANCE.choices(string.digits, k=count))


def date() -> str:
    """Such as 03/11/1987, 3 May 1987 or 1987-11-03."""
    day, month, year = _CHANCE.randint(1, 31), _CHANCE.randint(1, 12), _CHANCE.randint(1950, 2026)
    return _CHANCE.choice(
        [
            f"{day:02d}/{month:02d}/{year}",
            f"{day} {_CHANCE.choice(_MONTHS)} {year}",
            f"{year}-{month:02d}-{day:02d}",
        ]
    )


def telephone_number() -> str:
    """Such as +44 20 7946 0018, (212) 555-0147 or 01632 960983."""
    return _CHANCE.choice(
        [
            f"+44 {_digits(2)} {_digits(4)} {_digits(4)}",
            f"({_digits(3)}) {_digits(3)}-{_digits(4)}",
            f"0{_digits(4)} {_digits(6)}",
        ]
    )


def amount() -> str:
    """Such as £1,234.50, $799, 12.40 € or 15 %."""
    pounds = f"£{_CHANCE.randint(1, 9999):,}.{_digits(2)}"
    return _CHANCE.choice(
        [
            pounds,
            f"${_CHANCE.randint(1, 99999)}",
            f"{_CHANCE.randint(1, 99)}.{_digits(2)} €",
            f"{_CHANCE.randint(1, 100)} %",
        ]
    )


def postcode() -> str:
    """Such as SW1 2AB."""
    letters = "".join(_CHANCE.choices("ABCDEGLMNSW", k=2))
    return (
        f"{letters}{_CHANCE.randint(1, 20)} {_CHANCE.randint(1, 9)}{''.join(_CHANCE.choices('ABDEFGH', k=2))}"
    )


def reference() -> str:
    """6 to 10 capitals and digits."""
    return "".join(_CHANCE.choices(string.ascii_uppercase + string.digits, k=_CHANCE.randint(6, 10)))


def name() -> str:
    """Such as Alice Baker."""
    return " ".join(_CHANCE.choices(_NAMES, k=2)).title()


def address() -> str:
    """An e-mail address."""
    first, last, host = _CHANCE.choices(_NAMES, k=3)
    return f"{first}.{last}@{host}.{_CHANCE.choice(['com', 'co.uk', 'org', 'fr'])}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path(bundles.__file__).parent / "models/en")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="for the texts of its pen lines"
    )
    parser.add_argument("--fonts", type=Path, default=Path("runs/fonts"))
    parser.add_argument("--lines", type=int, default=300, help="of each kind")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    fonts = FontBank(arguments.fonts)
    _, pen = pen_lines(arguments.data)
    texts = iter([line.line.text for line in pen] * 2)
    kinds: Mapping[str, Callable[[], str]] = {
        "running text": lambda: next(texts),
        "running text in capitals": lambda: next(texts).upper(),
        "names": name,
        "dates": date,
        "telephone numbers": telephone_number,
        "amounts": amount,
        "postcodes": postcode,
        "references": reference,
        "e-mail addresses": address,
    }
    assert bundle.word_model_path is not None
    assert bundle.character_model_path is not None
    decoder = CtcBeamSearchDecoder(
        bundle.alphabet.labels,
        word_model=NgramLanguageModel(bundle.word_model_path),
        character_model=NgramLanguageModel(bundle.character_model_path),
        label_priors=bundle.label_priors,
        options=BeamSearchOptions(**bundle.decoder),
    )
    plain = replace(decoder.options, fold_capitals=False, figures_weight=1.0)
    print("| lines | how many | greedy | plain settings | all settings |\n|---|---|---|---|---|")
    for kind, draw in kinds.items():
        samples = []
        for number in range(arguments.lines):
            rng = np.random.default_rng([5, number])
            wanted = draw()
            text, mask = fonts.draw(wanted, rng)
            if text == wanted:  # else the font lacks a character
                samples.append(Sample(normalise_line(on_paper(mask, rng), bundle.line).pixels, text))
        outputs = compute_outputs(bundle, samples)
        readings = [
            [found.text for found in decoder.decode_greedy_batch(outputs.log_probs)],
            decoder.decode_text_batch(outputs.log_probs, plain),
            decoder.decode_text_batch(outputs.log_probs),
        ]
        rates = [character_error_rate(outputs.texts, [t.strip() for t in read]) for read in readings]
        print(
            f"| {kind} | {len(samples)} | " + " | ".join(f"{100 * rate:.1f}" for rate in rates) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
