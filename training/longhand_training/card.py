"""Writes a bundle's measured figures into its model card: ``python -m longhand_training.card BUNDLE accuracy.txt``.

Copies ``accuracy.txt`` (of :mod:`longhand_training.evaluate`) into the bundle and renews the heading and what stands
between the two ``figures`` marks of ``MODEL_CARD.md``; the rest of the card is written by hand and stays.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longhand_training.evaluate import SETTINGS

NAMES: Mapping[str, str] = {
    "pen": "IAM-OnDB, drawn plainly",
    "ink": "the same, as worn ink on paper",
    "copiste": "Copiste d'un jour (French scans)",
    "hooker": "Hooker letters (19th century)",
}
_BEGIN, _END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def table(figures: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, CER in % with its interval.

    Raises:
        ValueError: a set that was not read with every decoder setting.
    """
    rows = [
        "| validation lines | lines | greedy | word model | character model | both | WER, both "
        "| lines right, both | ECE, both |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, settings in figures["sets"].items():
        if missing := set(SETTINGS) - set(settings):
            raise ValueError(
                f"set {name!r} was not read with {sorted(missing)}; need all of {list(SETTINGS)}"
            )
        cells = [
            f"{100 * f['cer']:.1f} ({100 * f['cer_low']:.1f}-{100 * f['cer_high']:.1f})"
            for f in (settings[setting] for setting in SETTINGS)
        ]
        both = settings["both"]
        cells += [f"{100 * both['wer']:.1f}", f"{100 * both['line_accuracy']:.0f}", f"{both['ece']:.2f}"]
        rows.append(f"| {NAMES.get(name, name)} | {both['lines']} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def renewed(card: str, figures: Mapping[str, Any]) -> str:
    """The card with the figures' heading and table.

    Raises:
        ValueError: the card lacks the marks.
    """
    begin, end = card.find(_BEGIN), card.find(_END)
    if not 0 <= begin < end:
        raise ValueError(
            f"the card has no place for the figures: need {_BEGIN.strip()!r} before {_END.strip()!r}"
        )
    card = card[: begin + len(_BEGIN)] + table(figures) + card[end:]
    heading = f"# Model card: `{figures['model']}` {figures['version']}"
    return re.sub(r"\A# .*", lambda _: heading, card)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "accuracy", type=Path, help="accuracy.txt of an evaluation with every decoder setting"
    )
    options = parser.parse_args()
    try:
        figures = json.loads(options.accuracy.read_text("utf-8"))
        card = options.bundle / "MODEL_CARD.md"
        card.write_text(renewed(card.read_text("utf-8"), figures), "utf-8")
        target = options.bundle / "accuracy.txt"
        if options.accuracy.resolve() != target.resolve():
            shutil.copyfile(options.accuracy, target)
    except (ValueError, KeyError, OSError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 2
    print(f"{card}: renewed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
