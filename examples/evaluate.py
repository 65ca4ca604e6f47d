"""Error rates on one's own lines: python examples/evaluate.py LABELS.tsv [HOST:PORT] (rows: image TAB text)."""

import sys
from pathlib import Path

from longhand_client import DEFAULT_ADDRESS, LonghandError, RecognitionOptions, RecognizerClient
from longhand_client.command.scoring import Score

if len(sys.argv) < 2:
    sys.exit(__doc__)
labels = Path(sys.argv[1])
try:
    lines = labels.read_text(encoding="utf-8-sig").split("\n")
except (OSError, UnicodeDecodeError) as error:
    sys.exit(f"cannot read {labels}: {error}")
rows = [line.split("\t")[:2] for line in lines if line.strip()]
if not rows or any(len(row) < 2 for row in rows):
    sys.exit(f"{labels}: need rows of image TAB text")
settings = {"greedy": RecognitionOptions(decoder="greedy"), "beam + language models": RecognitionOptions()}
try:
    with RecognizerClient(sys.argv[2] if len(sys.argv) > 2 else DEFAULT_ADDRESS) as client:
        for name, options in settings.items():
            score = Score()
            outcomes = client.recognize_stream((labels.parent / path for path, _ in rows), options)
            for outcome, (path, expected) in zip(outcomes, rows, strict=True):
                if outcome.error is not None:
                    sys.exit(f"{path}: {outcome.error}")
                score.add(expected, outcome.result().text)
            print(f"{name:24}{score.summary()}")
except LonghandError as error:
    sys.exit(str(error))
