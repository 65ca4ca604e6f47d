"""Reads a folder's PNG files into a TSV over one stream: python examples/folder_job.py FOLDER OUT [HOST:PORT]."""

import csv
import sys
from pathlib import Path

from longhand_client import DEFAULT_ADDRESS, LonghandError, RecognizerClient

if len(sys.argv) < 3:
    print(__doc__, file=sys.stderr)
    sys.exit(2)
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
if not folder.is_dir():
    print(f"{folder}: no such folder", file=sys.stderr)
    sys.exit(2)
address = sys.argv[3] if len(sys.argv) > 3 else DEFAULT_ADDRESS
failed = 0
try:
    # File names need not be UTF-8, and come out as the bytes that they are.
    with (
        RecognizerClient(address) as client,
        out.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        rows = csv.writer(file, dialect="excel-tab")
        # The paths may be any iterable, however long: at most 64 images are on their way at once.
        for outcome in client.recognize_stream(sorted(folder.rglob("*.png")), look_ahead=64):
            if outcome.transcription is None:
                failed += 1
                print(f"{outcome.source!s}: {outcome.error}", file=sys.stderr)
            else:
                rows.writerow(
                    [outcome.source, f"{outcome.transcription.confidence:.3f}", outcome.transcription.text]
                )
except (LonghandError, OSError) as error:
    sys.exit(str(error))
sys.exit(1 if failed else 0)
