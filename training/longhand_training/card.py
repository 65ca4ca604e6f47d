"""Writes a bundle's measured figures into its model card: ``python -m longhand_training.card BUNDLE accuracy.txt``.

Copies ``accuracy.txt`` (of :mod:`longhand_training.evaluate`) into the bundle and renews the heading and what stands
between the two ``figures`` marks of ``MODEL_CARD.md``; the rest of the card is written by hand and stays. A bundle
without a card gets a short one.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.errors import InvalidModelError
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.evaluate import BEAM, SETTINGS, possible_settings

NAMES: Mapping[str, str] = {
    "pen": "IAM-OnDB, drawn plainly",
    "ink": "the same, as worn ink on paper",
    "copiste": "Copiste d'un jour (French scans)",
    "hooker": "Hooker letters (19th century)",
}
# Column headings of decoder settings.
_HEADINGS: Mapping[str, str] = {
    "greedy": "greedy",
    BEAM: "beam search",
    "word": "word model",
    "character": "character model",
    "both": "both",
}
_BEGIN, _END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def table(figures: Mapping[str, Any], needed: Sequence[str] = SETTINGS) -> str:
    """The figures as a Markdown table, CER in % with its interval.

    Args:
        figures: content of an ``accuracy.txt``.
        needed: decoder settings that the bundle can be read with; the last one also gets WER, right lines and ECE.

    Raises:
        ValueError: a set that was not read with every needed setting.
    """
    last = _HEADINGS[needed[-1]]
    headings = ["validation lines", "lines", *(_HEADINGS[setting] for setting in needed)]
    headings += [f"WER, {last}", f"lines right, {last}", f"ECE, {last}"]
    rows = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for name, settings in figures["sets"].items():
        if missing := set(needed) - set(settings):
            raise ValueError(f"set {name!r} was not read with {sorted(missing)}; need all of {list(needed)}")
        cells = [
            f"{100 * f['cer']:.1f} ({100 * f['cer_low']:.1f}-{100 * f['cer_high']:.1f})"
            for f in (settings[setting] for setting in needed)
        ]
        best = settings[needed[-1]]
        cells += [f"{100 * best['wer']:.1f}", f"{100 * best['line_accuracy']:.0f}", f"{best['ece']:.2f}"]
        rows.append(f"| {NAMES.get(name, name)} | {best['lines']} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def stub(bundle: ModelBundle) -> str:
    """A card for a model that none was written for: what is known, and what is not."""
    return f"""# Model card: `{bundle.name}` {bundle.version}

{bundle.description}. Nobody has written this card yet: it holds the measured figures alone. Which lines and settings
the weights came from stands in [bundle.json](bundle.json) under `training`.

CER in % (95 % bootstrap interval), WER and right lines in % of the lines named, which training must not have seen;
[accuracy.txt](accuracy.txt) holds it as JSON. Other hands, papers and languages were not measured.

{_BEGIN}{_END}"""


def renewed(card: str, figures: Mapping[str, Any], needed: Sequence[str] = SETTINGS) -> str:
    """The card with the figures' heading and table.

    Args:
        card: as it was.
        figures: content of an ``accuracy.txt``.
        needed: as of :func:`table`.

    Raises:
        ValueError: the card lacks the marks.
    """
    begin, end = card.find(_BEGIN), card.find(_END)
    if not 0 <= begin < end:
        raise ValueError(
            f"the card has no place for the figures: need {_BEGIN.strip()!r} before {_END.strip()!r}"
        )
    card = card[: begin + len(_BEGIN)] + table(figures, needed) + card[end:]
    heading = f"# Model card: `{figures['model']}` {figures['version']}"
    return re.sub(r"\A# .*", lambda _: heading, card)


def _read_figures(path: Path) -> dict[str, Any]:
    """Content of an ``accuracy.txt``.

    Raises:
        ValueError: not such a file (named).
    """
    try:
        figures = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no accuracy.txt: {error}") from error
    if not isinstance(figures, dict) or not isinstance(figures.get("sets", {}), dict):
        raise ValueError(f"{path}: is no accuracy.txt: need an object with figures by set")
    return figures


@exit_status("card", ValueError, OSError, InvalidModelError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the model")
    parser.add_argument(
        "accuracy", type=Path, help="accuracy.txt of an evaluation with every decoder setting that it has"
    )
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    figures = _read_figures(options.accuracy)
    try:
        measured, there = f"{figures['model']} {figures['version']}", f"{bundle.name} {bundle.version}"
        if measured != there:
            raise ValueError(
                f"{options.accuracy}: has figures of {measured}, and {options.bundle} is {there}"
            )
        card = options.bundle / "MODEL_CARD.md"
        written = card.exists()
        text = card.read_text("utf-8") if written else stub(bundle)
        card.write_text(renewed(text, figures, possible_settings(bundle)), "utf-8")
        target = options.bundle / "accuracy.txt"
        if options.accuracy.resolve() != target.resolve():
            shutil.copyfile(options.accuracy, target)
    except KeyError as error:
        raise ValueError(f"{options.accuracy}: holds no figure {error}") from error
    print(f"{card}: {'renewed' if written else 'written'}")


if __name__ == "__main__":
    sys.exit(main())
