"""Compares decoders on the same lines and models, and writes tables and a plot.

Every contender is tuned on the same development lines with the same number of trials, then measured on other lines:
character error rate, and CPU time of one thread. Run by `make bench-decoder`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from calibration import calibration_error
from lines import Lines, character_error_rate
from numpy.typing import NDArray
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

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel


@dataclasses.dataclass
class Row:
    """One line of the table."""

    name: str
    models: str
    settings: Settings
    error_rate: float
    milliseconds: float


def measure(decode: Decode, lines: Lines) -> tuple[float, float]:
    """Error rate in percent and CPU milliseconds a line; ten lines are read first to warm up."""
    for line in lines.log_probs[:10]:
        decode(line)
    begin = time.process_time()
    texts = [decode(line) for line in lines.log_probs]
    spent = time.process_time() - begin
    return character_error_rate(texts, lines.texts), 1000.0 * spent / len(lines)


def tune(contender: Contender, lines: Lines, budget: int) -> Settings:
    """The best of `budget` settings on the development lines."""
    tried = [(measure(contender.build(s), lines)[0], i, s) for i, s in enumerate(contender.trials(budget))]
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
        ours("longhand_decoder, merge_histories", labels, words, characters, grid, start, **merged),
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
        found.append(flashlight_characters(labels, models.character_model))
        found.append(flashlight_lexicon(labels, models.peer_word_model, unigrams))
    return found


def read_unigrams(path: Path) -> list[str]:
    """One word a line."""
    return path.read_text(encoding="utf-8").split("\n")


def compare(lines: Lines, development: Lines, found: Sequence[Contender], budget: int) -> list[Row]:
    """Tunes and measures every contender, and pyctcdecode's own settings besides."""
    rows = []
    for contender in found:
        if "alpha" in contender.start:
            rows.append(
                Row(
                    contender.name,
                    contender.models,
                    contender.start,
                    *measure(contender.build(contender.start), lines),
                )
            )
        best = tune(contender, development, budget)
        rows.append(
            Row(contender.name + " (tuned)", contender.models, best, *measure(contender.build(best), lines))
        )
        log(f"  {rows[-1].error_rate:.2f} %, {rows[-1].milliseconds:.3f} ms")
    greedy = CtcBeamSearchDecoder(lines.labels)
    rows.append(
        Row("longhand_decoder, greedy", "none", {}, *measure(lambda x: greedy.decode_greedy(x).text, lines))
    )
    return rows


def curve(contender: Contender, settings: Settings, lines: Lines) -> list[tuple[float, float]]:
    """(ms a line, error rate) over the beam widths."""
    points = [
        measure(contender.build({**settings, "beam_width": width}), lines) for width in contender.widths
    ]
    return [(milliseconds, error_rate) for error_rate, milliseconds in points]


def plot(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Error rate against time, with a logarithmic axis of time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("CPU milliseconds a line (one thread)")
    axes.set_ylabel("character error rate, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="svg")


def _decode_each(
    decoder: CtcBeamSearchDecoder, lines: Sequence[NDArray[np.float32]], options: BeamSearchOptions
) -> None:
    for line in lines:
        decoder.decode(line, options)


def cpu_milliseconds(work: Callable[[], object], repeats: int) -> float:
    """CPU time of one call, the least of three rounds."""
    rounds = []
    for _ in range(3):
        begin = time.process_time()
        for _ in range(repeats):
            work()
        rounds.append((time.process_time() - begin) / repeats * 1000.0)
    return min(rounds)


def extremes(lines: Lines, models: argparse.Namespace, best: Settings) -> dict[str, float]:
    """The other targets: wide pruning, greedy, batches, long lines."""
    words, characters = NgramLanguageModel(models.word_model), NgramLanguageModel(models.character_model)
    values: dict[str, Any] = {**best, "beam_width": 50}
    both = BeamSearchOptions(**values)
    merged = dataclasses.replace(both, merge_histories=True)
    decoder = CtcBeamSearchDecoder(lines.labels, word_model=words, character_model=characters)
    pair = CtcBeamSearchDecoder(lines.labels, word_model=words, character_model=characters, threads=2)
    wide = dataclasses.replace(both, beam_threshold=-20.0, token_threshold=-10.0)
    flat = dataclasses.replace(wide, temperature=1.5)
    every, count = lines.log_probs, len(lines)
    out = {"frames a line": lines.mean_frames, "labels": float(len(lines.labels))}
    kinds = {
        "both models, beam 50": both,
        "both models, beam 50, merge_histories": merged,
        "both models, -20 / -10": wide,
        "both models, -20 / -10, temperature 1.5": flat,
    }
    for name, options in kinds.items():
        out[name + ", ms"] = cpu_milliseconds(partial(_decode_each, decoder, every, options), 1) / count
    out["greedy, ms"] = cpu_milliseconds(lambda: [decoder.decode_greedy(x) for x in every], 1) / count
    for name, used in (("1 thread", decoder), ("2 threads", pair)):
        begin = time.perf_counter()
        used.decode_batch(every * 2, both)
        out[f"batch, {name}, wall ms"] = (time.perf_counter() - begin) * 500.0 / count
    rng = np.random.default_rng(0)
    labels = ["", *(chr(0x4E00 + i) for i in range(199))]
    logits = rng.normal(scale=2.0, size=(10000, 200)).astype(np.float32)
    logits[rng.random(10000) < 0.6, 0] += 8.0
    long_decoder = CtcBeamSearchDecoder(labels, options=BeamSearchOptions(input="logits"))
    for frames in (2500, 5000, 10000):
        part = np.ascontiguousarray(logits[:frames])
        out[f"{frames} frames x 200 labels, ms"] = cpu_milliseconds(partial(long_decoder.decode, part), 1)
    out["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return out


def calibrate(
    development: Lines, lines: Lines, models: argparse.Namespace, best: Settings
) -> dict[str, float]:
    """Calibration error of word confidences, as they come and with the scale that development lines suggest."""
    decoder = CtcBeamSearchDecoder(
        lines.labels,
        word_model=NgramLanguageModel(models.word_model),
        character_model=NgramLanguageModel(models.character_model),
    )
    values: dict[str, Any] = {**best, "beam_width": 50}
    base = BeamSearchOptions(**values)
    scales = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]
    errors = {
        s: calibration_error(decoder, development, dataclasses.replace(base, confidence_scale=s))
        for s in scales
    }
    scale = min(errors, key=errors.__getitem__)
    tuned = dataclasses.replace(base, confidence_scale=scale)
    merged = dataclasses.replace(tuned, merge_histories=True)
    return {
        "confidence_scale": scale,
        "ECE before, %": calibration_error(decoder, lines, base),
        "ECE after, %": calibration_error(decoder, lines, tuned),
        "ECE after, with merge_histories, %": calibration_error(decoder, lines, merged),
    }


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
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--note", default="", help="what the archives are")
    parser.add_argument("--out", type=Path, required=True, help="folder for benchmark.json and benchmark.svg")
    arguments = parser.parse_args()
    arguments.peers = arguments.peer_word_model is not None
    development = Lines.load(arguments.development)
    lines = Lines.load(arguments.lines).first(arguments.count)
    found = contenders(lines.labels, arguments)
    rows = compare(lines, development.first(arguments.development_lines), found, arguments.trials)
    best = rows[0].settings
    some = lines.first(60)
    curves = {f"{c.name}, {c.models}": curve(c, r.settings, some) for c, r in _with_tuned(found, rows)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    plot(curves, arguments.out / "benchmark.svg")
    result = {
        "processor": processor(),
        "python": platform.python_version(),
        "note": arguments.note,
        "lines": len(lines),
        "development_lines": arguments.development_lines,
        "trials": arguments.trials,
        "rows": [dataclasses.asdict(row) for row in rows],
        "extremes": extremes(lines, arguments, best),
        "calibration": calibrate(development, lines, arguments, best),
        "curves": curves,
    }
    (arguments.out / "benchmark.json").write_text(json.dumps(result, indent=1))


def _with_tuned(found: Sequence[Contender], rows: Sequence[Row]) -> list[tuple[Contender, Row]]:
    tuned = [row for row in rows if row.name.endswith("(tuned)")]
    return list(zip(found, tuned, strict=True))


if __name__ == "__main__":
    main()
