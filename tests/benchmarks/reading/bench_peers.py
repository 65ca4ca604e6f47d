"""Reads the validation lines with Longhand and with RapidOCR (PP-OCR), and compares errors and CPU time.

    .venv/bin/python -m pip install --target build/peers rapidocr==3.10.0
    .venv/bin/python tests/benchmarks/reading/bench_peers.py

RapidOCR's recogniser alone, whose weights its wheel holds: finding lines on a page is no part of this. Both get the
same PNG files, one at a time and in turns, and both have one thread; CPU time is the process's own, from the bytes of
a file to its text. The peer's packages come after those of the environment, so that both run in one ONNX Runtime.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import unicodedata
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from longhand_server.alphabet import fold_text
from longhand_server.bundle import load_bundle
from longhand_server.image import load_line_image
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import load_line_model
from longhand_training.ink import draw_ink, draw_plain, on_paper
from longhand_training.line_sets import VALIDATION_SETS, pen_lines
from longhand_training.metrics import character_error_rate
from longhand_training.packs import SCAN_PACKS, read_tar

Read = Callable[[bytes], str]
Line = tuple[bytes, str]
_ROOT = Path(__file__).parents[3]
_SHIPPED = _ROOT / "server" / "longhand_server" / "models" / "en"


def without_accents(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))


# How texts are changed on both sides before they are compared.
_COMPARED: dict[str, Callable[[str], str]] = {
    "CER %": lambda text: text,
    "without accents": without_accents,
    "without spaces": lambda text: text.replace(" ", ""),
}


def validation_lines(data: Path, name: str) -> list[Line]:
    """PNG files and texts of a set: what `validation_sets` normalises, as it was before."""
    if name in VALIDATION_SETS[:2]:
        lines: list[Line] = []
        for i, p in enumerate(pen_lines(data)[1]):
            rng = np.random.default_rng([7, i])
            worn = on_paper(draw_ink(p.line, rng, 64.0), rng)
            lines.append((_png(draw_plain(p.line) if name == "pen" else worn), p.line.text))
        return lines
    pack = data / SCAN_PACKS[VALIDATION_SETS.index(name) - 2]
    return [(_png(image.grey()), image.text) for image in read_tar(pack, "validation")]


def _png(grey: Any) -> bytes:
    done, content = cv2.imencode(".png", grey)
    assert done
    return content.tobytes()


def longhand(bundle_folder: Path) -> Read:
    """What the server does with a file: the 8-bit network, language models, second looks."""
    bundle = load_bundle(bundle_folder)
    recognizer = Recognizer(bundle, load_line_model(bundle, "cpu"))

    def read(content: bytes) -> str:
        image = load_line_image(content, bundle.line)
        return "" if image.is_blank else recognizer.recognize([image], [RecognitionOptions()])[0].text

    return read


def rapidocr(module: Any) -> Read:
    """RapidOCR's recogniser with its own settings, but for the number of threads."""
    engine = module.RapidOCR(
        params={
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def read(content: bytes) -> str:
        found = engine(content, use_det=False, use_cls=False, use_rec=True)
        # It writes some signs in their full width, as Chinese does, and typographic quotes, which labels lack.
        return fold_text(unicodedata.normalize("NFKC", " ".join(found.txts or ())))

    return read


def compare(lines: list[Line], readers: dict[str, Read]) -> list[str]:
    """Rows of the table for one set."""
    texts: dict[str, list[str]] = {name: [] for name in readers}
    cpu_s = dict.fromkeys(readers, 0.0)
    for number, (content, _) in enumerate(lines):
        turn = list(readers) if number % 2 else list(reversed(readers))  # neither always goes first
        for name in turn:
            begun = time.process_time()
            texts[name].append(readers[name](content))
            cpu_s[name] += time.process_time() - begun
    rows = []
    for name, read in texts.items():
        rates = [
            character_error_rate([change(text) for _, text in lines], [change(text) for text in read])
            for change in _COMPARED.values()
        ]
        figures = [*(f"{100 * rate:.1f}" for rate in rates), f"{1000 * cpu_s[name] / len(lines):.0f}"]
        rows.append(f"| {len(lines)} | {name} | {' | '.join(figures)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data", help="the packs")
    parser.add_argument("--bundle", type=Path, default=_SHIPPED, help="Longhand's model")
    parser.add_argument("--peers", type=Path, default=_ROOT / "build" / "peers", help="where RapidOCR is")
    parser.add_argument("--sets", nargs="+", choices=VALIDATION_SETS, default=VALIDATION_SETS)
    parser.add_argument("--every", type=int, default=1, help="take every N-th line")
    options = parser.parse_args()
    sys.path.append(str(options.peers))
    try:
        module = importlib.import_module("rapidocr")
    except ImportError as error:
        print(f"skipped: RapidOCR is not there ({error}); the head of this file says how to install it")
        return
    if not options.data.is_dir():
        print(f"skipped: no folder {options.data} with the validation lines (--data)")
        return
    cv2.setNumThreads(1)
    readers = {
        f"Longhand {load_bundle(options.bundle).version}": longhand(options.bundle),
        f"RapidOCR {version('rapidocr')}": rapidocr(module),
    }
    for read in readers.values():
        read((_ROOT / "examples" / "sample_line.png").read_bytes())  # what is loaded late is loaded now
    print(f"| set | lines | reader | {' | '.join(_COMPARED)} | CPU ms/line |")
    print("|---|---|---|---|---|---|---|")
    for name in options.sets:
        for row in compare(validation_lines(options.data, name)[:: options.every], readers):
            print(f"| {name} {row}", flush=True)


if __name__ == "__main__":
    main()
