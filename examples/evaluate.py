"""Error rates on one's own lines: python examples/evaluate.py LABELS.tsv [HOST:PORT] (rows: image TAB text)."""

import sys
from pathlib import Path

from longhand_client import DEFAULT_ADDRESS, RecognitionOptions, RecognizerClient
from longhand_client.command.scoring import Score

labels = Path(sys.argv[1])
rows = [line.split("\t")[:2] for line in labels.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
settings = {"greedy": RecognitionOptions(decoder="greedy"), "beam + language models": RecognitionOptions()}
with RecognizerClient(sys.argv[2] if len(sys.argv) > 2 else DEFAULT_ADDRESS) as client:
    for name, options in settings.items():
        score = Score()
        outcomes = client.recognize_stream((labels.parent / path for path, _ in rows), options)
        for outcome, (path, expected) in zip(outcomes, rows, strict=True):
            if outcome.error is not None:
                sys.exit(f"{path}: {outcome.error}")
            score.add(expected, outcome.result().text)
        print(f"{name:24}{score.summary()}")
