"""Trains variants of a small network, each on as many lines: ``python -m longhand_training.ablate``.

Says what a source of lines, a part of the network or of the training is worth. Every variant is an ordinary run of
:mod:`longhand_training.train` in a folder of its own and goes on after a stop; ``ablations.tsv`` holds the greedy
CER (%) of each on every validation set. ``all-again`` differs from ``all`` in its seed only: what it differs by is
noise.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import DATA, number
from longhand_training.curves import read_log

# 1 GMAC a line, and batches of three lines or so: what has to leave the plateau on which CTC training starts (all
# blank) within some thousand lines. Half the channels, or batches of five lines, were still on it after 8,000.
_SMALL = (
    *("--channels", "12", "24", "48", "96", "--blocks", "1", "2", "2", "--hidden", "160"),
    *("--batch-pixels", "2500", "--learning-rate", "2e-3", "--ema", "0.998"),
)
# A run may take so many lines more than it is to.
_LAST_BATCH = 100
_NO_SCANS = ("--copiste-share", "0", "--historical-share", "0")

# What each variant adds to the command line of the small network with every source.
VARIANTS: Mapping[str, Sequence[str]] = {
    "strokes": (*_NO_SCANS, "--font-share", "0", "--no-recompose"),
    "strokes-copiste": ("--historical-share", "0", "--font-share", "0", "--no-recompose"),
    "strokes-copiste-historical": ("--font-share", "0", "--no-recompose"),
    "strokes-copiste-historical-fonts": ("--no-recompose",),
    "all": (),
    "all-again": ("--seed", "2"),
    "no-shortcut": ("--shortcut-weight", "0"),
    "no-average": ("--ema", "0.0"),
    "2-gmac": ("--channels", "16", "32", "64", "128", "--hidden", "256"),
    "4-gmac": ("--channels", "32", "64", "96", "192", "--hidden", "256"),
}


def command(variant: str, options: argparse.Namespace) -> list[str]:
    """The command line that trains a variant; a later option overrides an earlier one."""
    fonts = ["--fonts", str(options.fonts)] if options.fonts else []
    return [
        *(sys.executable, "-m", "longhand_training.train", "--data", str(options.data), *fonts),
        *("--out", str(options.out / variant), "--lines", str(options.lines), "--minutes", "1000000"),
        *("--validate-every", "1000000", "--validation-lines", str(options.validation_lines)),
        *("--threads", str(options.threads), *_SMALL, *VARIANTS[variant]),
    ]


def result(folder: Path) -> dict[str, str] | None:
    """The last row of a finished run's log, or None."""
    rows = read_log(folder / "log.csv")
    return rows[-1] if rows else None


def train(variant: str, options: argparse.Namespace) -> dict[str, str]:
    """Trains a variant, or goes on with it, or only looks up what it came to; gives its row of the table.

    Raises:
        RuntimeError: its training failed (the file with its output is named), or there is a run of another length.
    """
    folder = options.out / variant
    if result(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "output.txt").open("ab") as output:
            done = subprocess.run(command(variant, options), stdout=output, stderr=output)
        if done.returncode:
            raise RuntimeError(f"{variant} failed ({done.returncode}); see {folder}/output.txt")
    row = result(folder)
    assert row is not None  # a run that ends well has validated
    if not 0 <= int(row["lines"]) - options.lines < _LAST_BATCH:
        raise RuntimeError(
            f"{folder} holds a run of {row['lines']} lines, --lines is {options.lines}; name another --out"
        )
    rates = {name[4:]: f"{100 * float(rate):.2f}" for name, rate in row.items() if name.startswith("cer_")}
    return {"variant": variant, "lines": row["lines"], "minutes": f"{float(row['minutes']):.1f}", **rates}


@exit_status("ablate", OSError)
def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--fonts", type=Path, help="folder made by python -m longhand_training.fonts")
    parser.add_argument("--out", type=Path, default=Path("runs/ablate"))
    parser.add_argument(
        "--lines", type=number(int, 1), default=16_000, help="that each variant is trained on"
    )
    parser.add_argument("--validation-lines", type=number(int, 1), default=200, help="of each validation set")
    parser.add_argument("--threads", type=number(int, 0), default=1, help="of each run")
    parser.add_argument("--jobs", type=number(int, 1), default=1, help="runs at the same time")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        metavar="VARIANT",
        help=f"only these of {', '.join(VARIANTS)}",
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for row in pool.map(lambda variant: train(variant, options), options.variants):
                rows.append(row)
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
                with (options.out / "ablations.tsv").open("w", newline="") as file:
                    writer = csv.DictWriter(file, rows[0], delimiter="\t")
                    writer.writeheader()
                    writer.writerows(rows)
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)
            print(f"ablate: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
