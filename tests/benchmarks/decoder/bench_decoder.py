"""Compares decoders on the same lines and models, and writes tables and a plot.

Every contender is tuned on the same development lines with the same number of trials, then measured on other lines:
character error rate, and CPU time of one thread. Run by `make bench-decoder`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from extremes import calibrate, extremes
from lines import Lines
from peers import (
    Contender,
    Decode,
    Settings,
    flashlight_characters,
    flashlight_lexicon,
    ours,
    ours_as_pyctcdecode,
    pyctcdecode_peer,
)

from longhand_decoder import CtcBeamSearchDecoder, NgramLanguageModel
from longhand_training.metrics import character_error_rate


@dataclasses.dataclass
class Row:
    """One line of the table."""

    name: str
    models: str
    settings: Settings
    error_rate: float
    milliseconds: float


@dataclasses.dataclass
class Entry:
    """One row to be, and the decoders that run for it."""

    name: str
    models: str
    settings: Settings
    build: Callable[[], Decode]
    decoders: list[Decode] = dataclasses.field(default_factory=list)
    texts: dict[int, str] = dataclasses.field(default_factory=dict)
    spent: float = 0.0


def race(entries: list[Entry], lines: Lines, before: Lines) -> list[Row]:
    """Error rate in percent, and CPU milliseconds a line, of decoders that have read the lines `before`.

    A shared machine is at times half as fast as at others, for seconds or minutes. So the lines are read in ten
    parts, and each part by all decoders in turn; what is quick runs five times, by as many decoders.
    """
    for entry in entries:
        count = 1
        while len(entry.decoders) < count:
            decode = entry.build()
            begin = time.process_time()
            for line in before.log_probs:
                decode(line)
            if time.process_time() - begin < 0.003 * len(before):
                count = 5
            entry.decoders.append(decode)
    for part in range(10):
        numbers = range(part, len(lines), 10)
        for entry in entries:
            for decode in entry.decoders:
                for line in before.log_probs:  # brings back what others have driven out of the caches
                    decode(line)
                begin = time.process_time()
                texts = [decode(lines.log_probs[number]) for number in numbers]
                entry.spent += time.process_time() - begin
                entry.texts.update(zip(numbers, texts, strict=True))
    return [
        Row(
            entry.name,
            entry.models,
            entry.settings,
            100.0 * character_error_rate(lines.texts, [entry.texts[i] for i in range(len(lines))]),
            1000.0 * entry.spent / len(entry.decoders) / len(lines),
        )
        for entry in entries
    ]


def tune(contender: Contender, lines: Lines, budget: int) -> Settings:
    """The best of `budget` settings on the development lines."""
    tried = []
    for i, settings in enumerate(contender.trials(budget)):
        texts = list(map(contender.build(settings), lines.log_probs))
        tried.append((100.0 * character_error_rate(lines.texts, texts), i, settings))
    error_rate, _, best = min(tried)
    log(f"{contender.name}: {error_rate:.2f} % on development lines with {best}")
    return best


def log(message: str) -> None:
    """Progress, on standard error."""
    print(message, file=sys.stderr, flush=True)


def contenders(labels: list[str], models: argparse.Namespace) -> list[Contender]:
    """All decoders that are installed, with the models they can use."""
    words = NgramLanguageModel(models.word_model)
    characters = NgramLanguageModel(models.character_model)
    bonuses = {"word_bonus": [0.0, 0.5, 1.0], "unknown_word_penalty": [2.0, 3.5, 5.0]}
    grid = {
        "word_weight": [0.2, 0.3],
        "character_weight": [0.3, 0.4],
        "character_bonus": [1.2, 1.8],
        **bonuses,
    }
    start = {"beam_width": 50, "word_weight": 0.28, "word_bonus": 0.5, "unknown_word_penalty": 3.4}
    start |= {"character_weight": 0.34, "character_bonus": 1.8}
    merged = {"merge_histories": True}
    found = [
        ours("longhand_decoder", labels, words, characters, grid, start),
        ours(
            "longhand_decoder, merge_histories, beam_threshold -8",
            labels,
            words,
            characters,
            grid,
            start,
            beam_threshold=-8.0,
            **merged,
        ),
        ours(
            "longhand_decoder, merge_histories, -6 / -5",
            labels,
            words,
            characters,
            grid,
            start,
            beam_threshold=-6.0,
            token_threshold=-5.0,
            **merged,
        ),
        ours(
            "longhand_decoder, merge_histories",
            labels,
            None,
            characters,
            {"character_weight": [0.3, 0.4, 0.5, 0.6, 0.7], "character_bonus": [0.5, 1.0, 1.5, 2.0]},
            {"beam_width": 50, "character_weight": 0.5, "character_bonus": 1.0},
            **merged,
        ),
        ours(
            "longhand_decoder, merge_histories",
            labels,
            words,
            None,
            {
                "word_weight": [0.3, 0.5, 0.7],
                "word_bonus": [0.5, 1.5, 2.5],
                "unknown_word_penalty": [2.0, 5.0],
            },
            {"beam_width": 50, "word_weight": 0.5, "word_bonus": 1.5, "unknown_word_penalty": 4.0},
            **merged,
        ),
    ]
    if models.peers:
        unigrams = read_unigrams(models.peer_unigrams)
        found.append(ours_as_pyctcdecode(labels, models.peer_word_model, unigrams))
        found.append(pyctcdecode_peer(labels, models.peer_word_model, unigrams))
        found.append(flashlight_lexicon(labels, models.peer_word_model, unigrams))
        found.append(flashlight_characters(labels, models.character_model))
    return found


def read_unigrams(path: Path) -> list[str]:
    """One word a line."""
    return path.read_text(encoding="utf-8").split("\n")


def entries_of(contender: Contender, development: Lines, budget: int) -> list[Entry]:
    """A contender, tuned; pyctcdecode's own settings besides."""
    settings = {f"{contender.name} (tuned)": tune(contender, development, budget)}
    if "alpha" in contender.start:
        settings = {contender.name: contender.start} | settings
    return [
        Entry(name, contender.models, values, partial(contender.build, values))
        for name, values in settings.items()
    ]


def greedy(labels: list[str]) -> Entry:
    """The decoder without search and models."""

    def build() -> Decode:
        decoder = CtcBeamSearchDecoder(labels)
        return lambda line: decoder.decode_greedy(line).text

    return Entry("longhand_decoder, greedy", "none", {}, build)


def curve(
    contender: Contender, settings: Settings, lines: Lines, development: Lines
) -> list[tuple[float, float]]:
    """(ms a line, error rate) over the beam widths."""
    points = []
    for width in contender.widths:
        build = partial(contender.build, {**settings, "beam_width": width})
        [row] = race([Entry(contender.name, contender.models, settings, build)], lines, development)
        points.append((row.milliseconds, row.error_rate))
    return points


def plot(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Error rate against time, with a logarithmic axis of time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 6))
    # A marker of its own for each: colours alone are not told apart by everybody.
    for (name, points), marker in zip(curves.items(), itertools.cycle("os^Dv<>PX*"), strict=False):
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=5, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("CPU milliseconds a line (one thread)")
    axes.set_ylabel("character error rate, %")
    axes.grid(alpha=0.3)
    # Below: within the axes it hides some curve or other.
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, -0.16), frameon=False)
    figure.tight_layout()
    figure.savefig(path, format="svg")


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [n for n in info.read_text().splitlines() if n.startswith("model name")] if info.is_file() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def main() -> None:
    """Runs everything and writes one JSON file and a plot; `report.py` makes the page from them."""
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--development", type=Path, required=True, help="archive of network outputs to tune on"
    )
    parser.add_argument("--lines", type=Path, required=True, help="archive of network outputs to measure on")
    parser.add_argument("--word-model", type=Path, required=True)
    parser.add_argument("--character-model", type=Path, required=True)
    parser.add_argument(
        "--peer-word-model", type=Path, help="of words that end at spaces only, for the peers"
    )
    parser.add_argument("--peer-unigrams", type=Path, help="its words, one a line")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--development-lines", type=int, default=60)
    parser.add_argument("--count", type=int, help="of the lines to measure on (default: all)")
    parser.add_argument("--note", default="", help="what the archives are")
    parser.add_argument("--out", type=Path, required=True, help="folder for benchmark.json and benchmark.svg")
    arguments = parser.parse_args()
    arguments.peers = arguments.peer_word_model is not None
    every = Lines.load(arguments.development)
    development = every.first(arguments.development_lines)
    lines = Lines.load(arguments.lines)
    if arguments.count is not None:
        lines = lines.first(arguments.count)
    arguments.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "processor": processor(),
        "python": platform.python_version(),
        "note": arguments.note,
        "lines": len(lines),
        "development_lines": arguments.development_lines,
        "trials": arguments.trials,
        "rows": [],
        "curves": {},
    }
    entries = [greedy(lines.labels)]
    for contender in contenders(lines.labels, arguments):
        entries += entries_of(contender, development, arguments.trials)
        best = entries[-1].settings
        points = curve(contender, best, lines.first(60), development)
        result["curves"][f"{contender.name}, {contender.models}"] = points
        if "extremes" not in result:  # the first contender: ours with both models
            result["extremes"] = extremes(lines, arguments, best)
            result["calibration"] = calibrate(every, lines, arguments, best)
        # After each: the slowest decoders come last.
        plot(result["curves"], arguments.out / "benchmark.svg")
    for row in race(entries, lines, development):
        log(f"  {row.name}: {row.error_rate:.2f} %, {row.milliseconds:.3f} ms")
        result["rows"].append(dataclasses.asdict(row))
    (arguments.out / "benchmark.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
