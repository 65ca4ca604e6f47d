"""Handwriting fonts (SIL Open Font License) from the @fontsource packages of npm, and lines set in them.

``python -m longhand_training.fonts DIR`` fetches them; nothing of them is committed or shipped.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from longhand_training.command_line import exit_status

# Hands that people could have written; ornamental scripts are left out.
# fmt: off
FONT_NAMES = (
    "annie-use-your-telescope", "architects-daughter", "bad-script", "beth-ellen", "bilbo", "caveat",
    "caveat-brush", "cedarville-cursive", "coming-soon", "cookie", "covered-by-your-grace",
    "crafty-girls", "damion", "dancing-script", "dawning-of-a-new-day", "delius",
    "edu-nsw-act-foundation", "edu-qld-beginner", "edu-sa-beginner", "edu-tas-beginner",
    "edu-vic-wa-nt-beginner", "fuzzy-bubbles", "gaegu", "give-you-glory", "gloria-hallelujah",
    "gochi-hand", "handlee", "herr-von-muellerhoff", "hi-melody", "homemade-apple", "indie-flower",
    "itim", "julee", "just-another-hand", "just-me-again-down-here", "kalam", "kristi",
    "la-belle-aurore", "league-script", "loved-by-the-king", "mali", "marck-script", "meddon",
    "merienda", "mr-dafoe", "mr-de-haviland", "mrs-saint-delafield", "nanum-pen-script", "neucha",
    "nothing-you-could-do", "over-the-rainbow", "pangolin", "parisienne", "patrick-hand",
    "playwrite-au-nsw", "playwrite-de-grund", "playwrite-fr-moderne", "playwrite-fr-trad",
    "playwrite-it-moderna", "playwrite-nl", "playwrite-us-modern", "playwrite-us-trad", "qwigley",
    "reenie-beanie", "rock-salt", "rouge-script", "sacramento", "satisfy", "schoolbell", "sedgwick-ave",
    "shadows-into-light", "shadows-into-light-two", "short-stack", "sriracha", "sue-ellen-francisco",
    "swanky-and-moo-moo", "the-girl-next-door", "vibur", "waiting-for-the-sunrise", "walter-turncoat",
    "yellowtail", "zeyada",
)
# fmt: on
# A font opened, and the characters that it can draw.
Font = tuple[ImageFont.FreeTypeFont, frozenset[str]]
_SIZE = 56


def fetch_fonts(directory: Path, names: tuple[str, ...] = FONT_NAMES) -> list[Path]:
    """Downloads the Latin file of each font that is not there yet.

    Args:
        directory: where the ``.woff2`` files go; made when it is not there.
        names: packages below ``@fontsource/``.

    Returns:
        The files that are there afterwards. A font that cannot be had is named on stderr and left out.

    Raises:
        RuntimeError: npm is not installed, or no font at all could be had.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    npm = shutil.which("npm")
    for name in names:
        target = directory / f"{name}.woff2"
        if not target.exists():
            if npm is None:
                raise RuntimeError("fonts come through npm, which is not installed (apt-get install npm)")
            if not _fetch(npm, name, target):
                print(f"font {name}: not to be had, left out", file=sys.stderr)
                continue
        found.append(target)
    if not found:
        raise RuntimeError(f"none of {len(names)} fonts could be fetched; is the npm registry reachable?")
    return found


def _fetch(npm: str, name: str, target: Path) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", f"@fontsource/{name}@5"]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
        packs = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not packs:
            return False
        with tarfile.open(packs[0]) as pack:
            for member in pack.getmembers():
                if member.name.endswith(f"/{name}-latin-400-normal.woff2"):
                    content = pack.extractfile(member)
                    if content is not None:
                        target.write_bytes(content.read())
                        return True
    return False


class FontBank:
    """The fonts of a folder, opened once."""

    def __init__(self, directory: Path) -> None:
        """Opens every font of the folder.

        Raises:
            ValueError: the folder holds no readable font.
        """
        self._fonts: list[Font] = []
        for path in sorted([*directory.glob("*.woff2"), *directory.glob("*.ttf")]):
            try:
                self._fonts.append(open_font(path))
            except ValueError as error:
                print(f"font {error}, left out", file=sys.stderr)
        if not self._fonts:
            raise ValueError(f"{directory}: no readable .woff2 or .ttf font in it")

    def __len__(self) -> int:
        return len(self._fonts)

    def draw(self, text: str, rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
        """:func:`draw_text` in a random font."""
        return draw_text(text, self._fonts[int(rng.integers(len(self._fonts)))], rng)


def open_font(path: Path) -> Font:
    """A font file at a size good for 64 px lines.

    Raises:
        ValueError: it cannot be read (the path is named).
    """
    try:
        font = ImageFont.truetype(str(path), _SIZE)
    except OSError as error:
        raise ValueError(f"{path}: {error}") from error
    return font, _drawable(font)


def draw_text(text: str, font: Font, rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
    """Sets a text in a font.

    Returns:
        What was set (characters that the font lacks left out; may be empty) and its ink coverage,
        (H, W) float32, with slant, stretch and stroke width at random.
    """
    face, drawable = font
    text = " ".join("".join(c for c in text if c in drawable or c == " ").split())
    if not text:
        return "", np.zeros((64, 64), np.float32)
    left, top, right, bottom = face.getbbox(text)
    border = 16
    size = (int(right - left) + 2 * border, int(bottom - top) + 2 * border)
    canvas = Image.new("L", size, 0)
    ImageDraw.Draw(canvas).text((border - left, border - top), text, fill=255, font=face)
    mask = np.asarray(canvas, np.float32) / 255.0
    return text, _bent(mask, rng)


def _drawable(font: ImageFont.FreeTypeFont) -> frozenset[str]:
    """Characters that the font has a glyph of its own for."""
    missing = bytes(font.getmask("\ue000"))
    candidates = [chr(i) for i in (*range(33, 127), *range(161, 256), 0x152, 0x153, 0x20AC)]
    return frozenset(c for c in candidates if (m := bytes(font.getmask(c))) != missing and any(m))


def _bent(mask: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = mask.shape
    slant = float(rng.normal(0.0, 0.2))
    stretch = float(np.exp(rng.normal(0.0, 0.2)))
    matrix = np.array([[stretch, -slant * stretch, slant * stretch * height / 2], [0, 1, 0]])
    size = (int(width * stretch + abs(slant) * height) + 8, height)
    bent = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR)
    kind = rng.random()
    if kind < 0.35:
        bent = cv2.dilate(bent, np.ones((2, 2), np.uint8) if kind < 0.2 else np.ones((3, 3), np.uint8))
    return np.asarray(bent, np.float32)


@exit_status("fonts", RuntimeError, OSError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fetch handwriting fonts (OFL) for training.")
    parser.add_argument("directory", type=Path, help="folder for the fonts")
    directory = parser.parse_args().directory
    fonts = fetch_fonts(directory)
    print(f"{len(fonts)} fonts in {directory}")


if __name__ == "__main__":
    sys.exit(main())
