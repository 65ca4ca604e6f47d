"""French prose for the language models, from the manuals that Debian packages in French.

``python -m longhand_training.french_text runs/french.txt`` fetches and unpacks the packages (nothing is installed)
and writes their paragraphs; nothing of them is committed, only models estimated from them ship.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from longhand_training.command_line import exit_status

# MPL 2.0; GPL 2 or later; copies and changed versions under the terms of the FAQ itself.
PACKAGES = ("libreoffice-help-fr", "debian-reference-fr", "debian-faq-fr")
# Headings, menus and untranslated paragraphs are left out.
_SHORTEST = 6
# fmt: off
_COMMON_WORDS = frozenset((
    "à", "ce", "dans", "de", "des", "du", "en", "est", "et", "la", "le", "les", "par", "pour", "que", "sur", "un",
    "une", "vous",
))
# fmt: on
_LEAST_COMMON = 0.12


class _Paragraphs(HTMLParser):
    """Collects the text of each block element."""

    _BLOCKS = frozenset(
        ["br", "dd", "div", "dt", "h1", "h2", "h3", "h4", "li", "p", "td", "th", "title", "tr"]
    )
    _SKIPPED = frozenset(("code", "head", "pre", "script", "style"))

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._pieces: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._skipping += tag in self._SKIPPED
        self._end_of(tag)

    def handle_endtag(self, tag: str) -> None:
        self._skipping -= tag in self._SKIPPED
        self._end_of(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._pieces.append(data)

    def _end_of(self, tag: str) -> None:
        if tag in self._BLOCKS:
            self.found.append(" ".join("".join(self._pieces).split()))
            self._pieces = []


def french_paragraphs(page: str) -> Iterator[str]:
    """The paragraphs of an HTML page that are French sentences."""
    parser = _Paragraphs()
    parser.feed(page)
    parser.close()
    for paragraph in parser.found:
        words = paragraph.lower().split()
        common = sum(word in _COMMON_WORDS for word in words)
        if len(words) >= _SHORTEST and common >= _LEAST_COMMON * len(words):
            yield paragraph


def fetch(packages: tuple[str, ...], out: Path) -> int:
    """Writes the French paragraphs of some Debian packages, each once, one a line; gives their number of words.

    Raises:
        RuntimeError: a package cannot be fetched or unpacked, or holds no French.
        OSError: apt-get or dpkg-deb is not there, or ``out`` cannot be written.
    """
    seen: dict[str, None] = {}
    for package in packages:
        before = len(seen)
        with tempfile.TemporaryDirectory() as temporary:
            # As a user that apt may drop its rights to.
            Path(temporary).chmod(0o777)
            try:
                _run(["apt-get", "--quiet", "download", package], temporary)
            except RuntimeError as error:
                raise RuntimeError(f"{error} (without package lists: apt-get update)") from error
            _run(["dpkg-deb", "--extract", *map(str, Path(temporary).glob("*.deb")), "files"], temporary)
            for page in sorted(Path(temporary, "files").rglob("*.html")):
                seen.update(dict.fromkeys(french_paragraphs(page.read_text("utf-8", "replace"))))
        if len(seen) == before:
            raise RuntimeError(f"{package}: no French text in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(seen) + "\n", "utf-8")
    return sum(len(paragraph.split()) for paragraph in seen)


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


@exit_status("french_text", RuntimeError, OSError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fetch French prose for the language models.")
    parser.add_argument("out", type=Path, help="text file to write")
    out = parser.parse_args().out
    words = fetch(PACKAGES, out)
    print(f"{words} words in {out}")


if __name__ == "__main__":
    sys.exit(main())
