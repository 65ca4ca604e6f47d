"""Text for composed lines: phrases from the language-model corpora, and rare characters on purpose."""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from longhand_server.alphabet import fold_text

# Near to everyday prose; the novels would drown it.
DEFAULT_CORPORA = ("brown", "state_union", "gutenberg", "standardebooks_nonfiction")


def read_sentences(path: Path) -> Iterator[str]:
    """Folded sentences of a ``.txt`` or ``.txt.xz`` file, one a line.

    Raises:
        ValueError: no such file, not UTF-8, or not an xz file.
    """
    try:
        with (
            lzma.open(path, "rt", encoding="utf-8")
            if path.suffix == ".xz"
            else path.open(encoding="utf-8") as lines
        ):
            for line in lines:
                sentence = fold_text(line)
                if sentence:
                    yield sentence
    except (OSError, UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: not a readable text: {error}") from error


class PhraseSource:
    """Random phrases of line length."""

    def __init__(self, sentences: Sequence[str]) -> None:
        if not sentences:
            raise ValueError("no sentences to take phrases from")
        self._sentences = sentences

    @classmethod
    def from_folder(cls, folder: Path, most: int = 120_000, extra: Sequence[str] = ()) -> PhraseSource:
        """Reads up to ``most`` sentences of each of the default corpora of a folder."""
        sentences = list(extra)
        for name in DEFAULT_CORPORA:
            for path in (folder / f"{name}.txt.xz", folder / f"{name}.txt"):
                if path.is_file():
                    sentences.extend(s for s, _ in zip(read_sentences(path), range(most), strict=False))
        return cls(sentences)

    def phrase(self, rng: np.random.Generator, shortest: int = 8, longest: int = 70) -> str:
        """A run of words, or now and then figures, sums, capitals, or quoted and bracketed words."""
        if rng.random() < 0.12:
            return _oddity(rng)
        words: list[str] = []
        wanted = int(rng.integers(shortest, longest))
        while len(" ".join(words)) < wanted:
            words += self._sentences[int(rng.integers(len(self._sentences)))].split(" ")
        start = int(rng.integers(0, max(len(words) - 3, 1)))
        phrase = ""
        for word in words[start:]:
            if len(phrase) + 1 + len(word) > wanted and phrase:
                break
            phrase = f"{phrase} {word}" if phrase else word
        return _dressed(phrase[:longest], rng)


def _dressed(phrase: str, rng: np.random.Generator) -> str:
    kind = rng.random()
    words = phrase.split(" ")
    at = int(rng.integers(len(words)))
    if kind < 0.05:
        return phrase.upper()
    if kind < 0.10:
        words[at] = f'"{words[at]}"'
    elif kind < 0.14:
        words[at] = f"({words[at]})"
    elif kind < 0.18:
        words[at] = words[at].capitalize() + str(rng.choice(list("!?;:")))
    elif kind < 0.22:
        words.insert(at, _number(rng))
    elif kind < 0.24:
        words = [word.capitalize() for word in words]
    return " ".join(words)


def _number(rng: np.random.Generator) -> str:
    value = int(rng.integers(0, 10 ** int(rng.integers(1, 7))))
    form = int(rng.integers(8))
    return [
        str(value),
        f"{value:,}",
        f"{value % 100}.{value % 97:02d}",
        f"{value % 100}%",
        f"£{value:,}",
        f"${value}",
        f"{1500 + value % 520}",
        f"{value % 31 + 1}/{value % 12 + 1}/{value % 100:02d}",
    ][form]


def _oddity(rng: np.random.Generator) -> str:
    signs = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_{|}~£€°§")
    letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZéèàçêîôûùëïüöäÉÀ")
    parts = []
    for _ in range(int(rng.integers(2, 7))):
        kind = rng.random()
        if kind < 0.5:
            parts.append(_number(rng))
        elif kind < 0.75:
            parts.append("".join(rng.choice(letters, int(rng.integers(1, 6)))))
        else:
            parts.append("".join(rng.choice(signs, int(rng.integers(1, 3)))))
    return " ".join(parts)
