"""Turns what `bench_decoder.py` measured into `BENCHMARK.md` and its plot: `report.py FROM TO`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def _settings(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


def _ratios(rows: list[dict[str, Any]]) -> str:
    """How many times as fast as the peers, in words; nothing without them."""
    by_name = {row["name"]: row for row in rows}
    as_theirs, theirs = by_name.get("longhand_decoder as pyctcdecode"), by_name.get("pyctcdecode 0.5.0")
    ours = [
        row for row in rows if row["name"].startswith("longhand_decoder") and row["name"].endswith("(tuned)")
    ]
    peers = [row for row in rows if not row["name"].startswith("longhand_decoder")]
    if not as_theirs or not theirs:
        return ""
    fastest = min(peers, key=lambda row: row["milliseconds"])
    best = min(ours, key=lambda row: row["error_rate"])
    quick = min((row for row in ours if row["models"] == best["models"]), key=lambda row: row["milliseconds"])
    text = (
        f"\nAt pyctcdecode's own settings (beam 100, word 4-gram) `build_ctcdecoder` is "
        f"{theirs['milliseconds'] / as_theirs['milliseconds']:.0f} times as fast as pyctcdecode, at "
        f"{as_theirs['error_rate']:.2f} % against {theirs['error_rate']:.2f} % errors. Of the peers with a language "
        f"model {fastest['name']} is the fastest, and the most exact has "
        f"{min(row['error_rate'] for row in peers):.2f} % errors; with {best['models']} models"
    )
    compared = " and".join(
        f" {row['name']} is {fastest['milliseconds'] / row['milliseconds']:.0f} times as fast as the fastest peer "
        f"at {row['error_rate']:.2f} % errors"
        for row in (best, quick)
    )
    return f"{text}{compared}.\n"


def render(result: dict[str, Any]) -> str:
    """The page."""
    rows = sorted(result["rows"], key=lambda row: row["error_rate"])
    table = [
        f"| {row['name']} | {row['models']} | {row['error_rate']:.2f} | {row['milliseconds']:.3f} "
        f"| {_settings(row['settings'])} |"
        for row in rows
    ]
    ratio = _ratios(result["rows"])
    others = "\n".join(f"| {name} | {value:.3f} |" for name, value in result["extremes"].items())
    calibration = "\n".join(f"| {name} | {value:.3g} |" for name, value in result["calibration"].items())
    return f"""# The decoder beside its peers

Written by `make bench-decoder` (`tests/benchmarks/decoder/`); do not edit by hand.

- Machine: {result["processor"]}, one thread, CPU time (`time.process_time`), Python {result["python"]}.
- Lines: {result["lines"]}, {result["note"]}.
- Each contender was tuned with {result["trials"]} trials on the same {result["development_lines"]} development lines.
- Each is timed on lines it has not seen: in ten parts, each read by all decoders in turn, by five of those that take
  less than 3 ms a line. Before each part a decoder reads the development lines, which bring back what the others
  have driven out of the processor's caches.
- What is timed: from the array to the text. longhand_decoder's scores, frames and confidences come on top (below:
  with and without).
- Error rate: edit distance over all characters of the references, in percent.

| decoder | models | CER % | ms a line | settings |
|---|---|---|---|---|
{chr(10).join(table)}
{ratio}
![character error rate against time](benchmark.svg)

Points of a curve are beam widths, each measured on the first 60 of the lines: its error rates are not the table's.

## Other measurements

Times a line: CPU time, the least of three rounds over the first 200 lines, so that the models' caches are warm;
above, each line is read once. Memory: the growth of a fresh process's peak through one decode.

| what | value |
|---|---|
{others}

## Calibration of word confidences

Expected calibration error (15 bins) of the words read, before and after `confidence_scale` is chosen on the
development lines.

| what | value |
|---|---|
{calibration}
"""


def main() -> None:
    """Reads the one folder and writes into the other."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    result = json.loads((source / "benchmark.json").read_text())
    (target / "BENCHMARK.md").write_text(render(result), encoding="utf-8")
    shutil.copy(source / "benchmark.svg", target / "benchmark.svg")


if __name__ == "__main__":
    main()
