"""A smaller copy of the training data, to carry to a machine that takes little luggage.

``python -m longhand_training.pack_data --data ../shared/data --fonts runs/fonts --out .gpu`` writes the same files
with scans at most 64 px high, a part of the text, and the fonts: 54 MB instead of 95.
"""

from __future__ import annotations

import argparse
import io
import itertools
import lzma
import shutil
import sys
import tarfile
from pathlib import Path

import cv2

from longhand_server.errors import InvalidImageError
from longhand_training.command_line import HelpFormatter, exit_status
from longhand_training.config import DATA
from longhand_training.packs import SCAN_PACKS, decode_trusted
from longhand_training.text import DEFAULT_CORPORA, read_sentences

_HEIGHT = 64
_QUALITY = 70
_SENTENCES = 12_000


def shrink_tar(source: Path, target: Path) -> None:
    """Copies a tar of lines, every image scaled down to 64 px and compressed again.

    The copy is an xz-compressed tar (its many headers shrink to nothing), which readers open all the same.
    """
    with tarfile.open(source) as old, tarfile.open(target, "w:xz") as new:
        for member in old.getmembers():
            file = old.extractfile(member)
            if file is None:
                continue
            data = file.read()
            if not member.name.endswith(".tsv"):
                try:
                    data = _shrunk(data)
                except InvalidImageError as error:
                    print(f"{source}: {member.name} left out: {error}", file=sys.stderr)
                    continue
            info = tarfile.TarInfo(member.name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))


def _shrunk(data: bytes) -> bytes:
    grey = decode_trusted(data)
    scale = min(_HEIGHT / grey.shape[0], 1.0)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    if not done:
        raise InvalidImageError("cannot be encoded as WebP")
    packed = encoded.tobytes()
    return packed if len(packed) < len(data) else data


def copy_data(data: Path, fonts: Path | None, out: Path) -> int:
    """Writes the smaller copy of the data folder and of the fonts; gives its size in bytes.

    Raises:
        ValueError, OSError, tarfile.TarError: a file that cannot be read or written.
    """
    (out / "text").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data / "iamondb_strokes.npz", out / "iamondb_strokes.npz")
    for name in SCAN_PACKS:
        shrink_tar(data / name, out / name)
    for corpus in DEFAULT_CORPORA:
        path = data / "text" / f"{corpus}.txt.xz"
        sentences = itertools.islice(read_sentences(path), _SENTENCES)
        with lzma.open(out / "text" / f"{corpus}.txt.xz", "wt", encoding="utf-8") as file:
            file.write("\n".join(sentences) + "\n")
    if fonts is not None:
        shutil.copytree(fonts, out / "fonts", dirs_exist_ok=True)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


@exit_status("pack_data", ValueError, OSError, tarfile.TarError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--fonts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    size = copy_data(options.data, options.fonts, options.out)
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
