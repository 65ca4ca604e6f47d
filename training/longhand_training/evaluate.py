"""Measures a bundle on labelled lines: ``python -m longhand_training.evaluate BUNDLE --data ../shared/data``.

Each set is read greedily and with the language models asked for. Prints a table, and writes into ``--out``:
``accuracy.txt`` (every figure, as JSON), and as the last decoder setting reads, ``confusions.tsv`` (the commonest
mistakes; ∅ stands for nothing, ␣ for a space), ``readings.tsv`` (every line, with its CER as a fraction) and
``worst-SET.html`` (the lines read worst, with their images).
"""

from __future__ import annotations

import argparse
import base64
import html
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.errors import LonghandError
from longhand_server.image import LineImage
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer, Transcription
from longhand_server.runtime import LineModel, choose_device, load_line_model
from longhand_training.command_line import HelpFormatter, add_own_lines, exit_status
from longhand_training.config import number
from longhand_training.dataset import Sample
from longhand_training.iam import IAM_TEST
from longhand_training.line_sets import chosen_sets
from longhand_training.metrics import (
    ErrorRates,
    alignment,
    bootstrap_interval,
    character_error_rate,
    error_rates,
    expected_calibration_error,
)
from longhand_training.outputs import LineOutputs, compute_outputs
from longhand_training.text import escaped

# What a bundle with both language models is read with.
SETTINGS = ("greedy", "word", "character", "both")
# Beam search without a language model.
BEAM = "beam"
# Lines that are read at once.
_TOGETHER = 64
_SHOWN = {"": "∅", " ": "␣"}


@dataclass(frozen=True)
class Reading:
    """How a set was read with one decoder setting.

    Attributes:
        texts: one a line.
        rates: CER, WER, line accuracy.
        interval: 95 % bootstrap interval of the CER.
        calibration_error: ECE of the confidence that the whole line is right.
    """

    texts: list[str]
    rates: ErrorRates
    interval: tuple[float, float]
    calibration_error: float

    def figures(self) -> dict[str, Any]:
        """For JSON; rates as fractions."""
        low, high = self.interval
        return {**asdict(self.rates), "cer_low": low, "cer_high": high, "ece": self.calibration_error}


def possible_settings(bundle: ModelBundle) -> Sequence[str]:
    """The decoder settings that a bundle has the language models for; greedy and beam search where it has none."""
    if bundle.word_model_path and bundle.character_model_path:
        return SETTINGS
    if bundle.word_model_path:
        return "greedy", "word"
    return "greedy", "character" if bundle.character_model_path else BEAM


def make_recognizer(
    bundle: ModelBundle, line_model: LineModel, setting: str, *, threads: int = 1, second_look: bool = True
) -> Recognizer:
    """What serves the bundle, with both language models, one of them, or (``greedy``, ``beam``) none.

    Raises:
        ValueError: the bundle lacks a language model that the setting asks for.
    """
    wanted = {"greedy": (), BEAM: (), "both": ("word", "character")}.get(setting, (setting,))
    paths = {"word": bundle.word_model_path, "character": bundle.character_model_path}
    for name in wanted:
        if paths[name] is None:
            raise ValueError(f"{bundle.directory}: has no {name} model, which --decoder {setting} needs")
    bundle = replace(
        bundle,
        word_model_path=paths["word"] if "word" in wanted else None,
        character_model_path=paths["character"] if "character" in wanted else None,
    )
    return Recognizer(bundle, line_model, decoder_threads=threads, second_look=second_look)


def read_outputs(
    recognizer: Recognizer, samples: Sequence[Sample], outputs: LineOutputs, setting: str
) -> Reading:
    """Decodes a set, with second looks where the recogniser takes them, and compares it with its references."""
    options = RecognitionOptions(greedy=setting == "greedy")
    results: list[Transcription] = []
    for start in range(0, len(samples), _TOGETHER):
        images = [as_line_image(sample.pixels) for sample in samples[start : start + _TOGETHER]]
        log_probs = outputs.log_probs[start : start + _TOGETHER]
        results += recognizer.transcribe(images, log_probs, 0.0, [options] * len(images))
    texts = [result.text for result in results]
    right = [text == reference for text, reference in zip(texts, outputs.texts, strict=True)]
    return Reading(
        texts,
        error_rates(outputs.texts, texts),
        bootstrap_interval(outputs.texts, texts),
        expected_calibration_error([result.confidence for result in results], right),
    )


def as_line_image(pixels: NDArray[np.float32]) -> LineImage:
    """A normalised line whose place in a scan does not matter."""
    height, width = pixels.shape
    return LineImage(pixels, width, height, 0.0, 1.0, is_blank=False)


def confusions(references: Sequence[str], texts: Sequence[str]) -> Counter[tuple[str, str]]:
    """How often what stood there (first) was read as something else (second); "" for nothing."""
    counts: Counter[tuple[str, str]] = Counter()
    for reference, text in zip(references, texts, strict=True):
        counts.update((a, b) for a, b in alignment(reference, text) if a != b)
    return counts


def worst_sheet(samples: Sequence[Sample], texts: Sequence[str], count: int = 40) -> str:
    """An HTML page of the lines with the most character errors, worst first."""
    pairs = [alignment(sample.text, text) for sample, text in zip(samples, texts, strict=True)]
    errors = [sum(a != b for a, b in of_line) for of_line in pairs]
    worst = sorted((i for i, wrong in enumerate(errors) if wrong), key=errors.__getitem__, reverse=True)
    rows = []
    for i in worst[:count]:
        picture = (255 - 255 * np.clip(samples[i].pixels, 0, 1)).astype(np.uint8)
        done, data = cv2.imencode(".png", picture)
        assert done
        source = base64.b64encode(data.tobytes()).decode()
        name = html.escape(escaped(samples[i].name))
        written, read = _marked(pairs[i]), _marked((b, a) for a, b in pairs[i])
        rows.append(
            f'<p><img src="data:image/png;base64,{source}" alt=""><br><b>{written}</b><br>'
            f"{read} <small>({errors[i]} errors, {name})</small></p>"
        )
    style = (
        "body{font:15px sans-serif;margin:2em;overflow-wrap:anywhere}img{max-width:100%;border:1px solid #ccc}"
        "mark{text-decoration:underline}"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>Worst lines</title><style>{style}</style>"
        "<h1>Worst lines</h1>In bold what is written, below it what was read; marked where they differ."
        + "".join(rows)
    )


def _marked(pairs: Iterable[tuple[str, str]]) -> str:
    """The first text of an alignment as HTML; what the second has not is marked."""
    return "".join(
        html.escape(a) if same else f"<mark>{html.escape(a)}</mark>"
        for same, run in itertools.groupby(pairs, lambda pair: pair[0] == pair[1])
        if (a := "".join(one for one, _ in run))
    )


def _sets(options: argparse.Namespace, bundle: ModelBundle) -> dict[str, list[Sample]]:
    sets = chosen_sets(options, bundle.line)
    if options.sets:
        unknown = set(options.sets) - set(sets)
        if unknown:
            raise ValueError(f"--sets: no set {sorted(unknown)}; there are {sorted(sets)}")
        sets = {name: sets[name] for name in options.sets}
    if not sets:
        raise ValueError("nothing to read: name --data, --folder or --iam")
    return {name: samples[:: options.every] for name, samples in sets.items()}


def readings_table(name: str, samples: Sequence[Sample], texts: Sequence[str]) -> list[str]:
    """Rows of ``readings.tsv``: set, file, CER, reference, reading."""
    return [
        f"{name}\t{escaped(s.name)}\t{character_error_rate([s.text], [text]):.4f}\t{s.text}\t{text}"
        for s, text in zip(samples, texts, strict=True)
    ]


def _write(
    out: Path, figures: Mapping[str, Any], mistakes: Counter[tuple[str, str]], readings: Sequence[str]
) -> None:
    (out / "accuracy.txt").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    lines = ["reference\tread\tcount"]
    lines += [f"{_SHOWN.get(a, a)}\t{_SHOWN.get(b, b)}\t{n}" for (a, b), n in mistakes.most_common(100)]
    (out / "confusions.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    lines = ["set\tfile\tCER\treference\treading", *readings]
    (out / "readings.tsv").write_text("\n".join(lines) + "\n", "utf-8")


def _row(name: str, setting: str, reading: Reading) -> str:
    low, high = reading.interval
    rates = reading.rates
    return (
        f"{name:9} {setting:11}{rates.lines:6}{100 * rates.cer:8.2f}"
        f"  {100 * low:6.2f} - {100 * high:5.2f}   {100 * rates.wer:7.2f}"
        f"{100 * rates.line_accuracy:9.1f}{reading.calibration_error:7.3f}"
    )


def _evaluate(options: argparse.Namespace) -> None:
    device = choose_device(options.device)
    bundle = load_bundle(options.bundle)
    settings = options.decoder or possible_settings(bundle)
    line_model = load_line_model(bundle, device, options.precision)
    recognizers = {
        setting: make_recognizer(
            bundle, line_model, setting, threads=options.threads, second_look=not options.one_look
        )
        for setting in settings
    }
    sets = _sets(options, bundle)
    for folder in (options.out, *([options.dump_log_probs.parent] if options.dump_log_probs else [])):
        folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"model": bundle.name, "version": bundle.version, "sets": {}}
    mistakes: Counter[tuple[str, str]] = Counter()
    rows: list[str] = []
    print("set       decoder     lines   CER %  95 % interval     WER %  lines %    ECE")
    last = None
    for name, samples in sets.items():
        outputs = compute_outputs(bundle, samples, line_model)
        if options.dump_log_probs:
            stem = options.dump_log_probs
            outputs.save(stem.with_name(f"{stem.stem}-{name}.npz"))
        for setting, recognizer in recognizers.items():
            last = read_outputs(recognizer, samples, outputs, setting)
            figures["sets"].setdefault(name, {})[setting] = last.figures()
            print(_row(name, setting, last), flush=True)
        assert last is not None  # --decoder takes at least one
        mistakes += confusions(outputs.texts, last.texts)
        rows += readings_table(name, samples, last.texts)
        (options.out / f"worst-{name}.html").write_text(worst_sheet(samples, last.texts), "utf-8")
    _write(options.out, figures, mistakes, rows)
    print(f"written: {options.out}/accuracy.txt, confusions.tsv, readings.tsv, worst-*.html")


@exit_status("evaluate", ValueError, RuntimeError, OSError, LonghandError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the model")
    parser.add_argument("--data", type=Path, help="folder of the packs: reads their validation lines")
    add_own_lines(parser, IAM_TEST, hold_out=True)
    parser.add_argument("--sets", nargs="+", help="only these sets (pen ink copiste hooker, or folder names)")
    parser.add_argument("--every", type=number(int, 1), default=1, help="take every N-th line")
    parser.add_argument(
        "--decoder",
        nargs="+",
        choices=(*SETTINGS, BEAM),
        metavar="SETTING",
        help=f"{', '.join((*SETTINGS, BEAM))}: by its language models (default: all that the bundle has; "
        "without any: greedy and beam)",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda[:i] (default: %(default)s)")
    parser.add_argument("--precision", choices=("auto", "full"), default="auto", help="as the server's")
    parser.add_argument("--threads", type=number(int, 1), default=1, help="of the beam search")
    parser.add_argument(
        "--one-look",
        action="store_true",
        help="never read a line again, as a server with --second-look false",
    )
    parser.add_argument(
        "--dump-log-probs",
        type=Path,
        metavar="NAME.npz",
        help="save the raw outputs of each set as NAME-SET.npz",
    )
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    _evaluate(options)


if __name__ == "__main__":
    sys.exit(main())
