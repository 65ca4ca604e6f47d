"""Text: the alphabet, corpora, phrases for composed lines with rare characters on purpose, and names in messages."""

from __future__ import annotations

import itertools
import lzma
import unicodedata
from calendar import month_name
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase, digits

import numpy as np

from longhand_server.alphabet import fold_text

# Printable ASCII, then the accented letters and signs of the data.
DEFAULT_CHARACTERS = (
    "".join(chr(i) for i in range(32, 127)) + "£€§°½àáâäæçèéêëìíîïñóôöùúûüœÀÁÂÄÇÈÉÊËÎÏÑÓÔÖÙÛÜŒ"
)
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


def read_characters(path: Path) -> str:
    """The alphabet that a UTF-8 text names: its characters as labels write them, each once, and the space.

    Raises:
        ValueError: no such file, not UTF-8, empty, or with a character that cannot be written (named).
    """
    characters = "".join(dict.fromkeys(" " + "".join(read_sentences(path))))
    if unwritable := [character for character in characters if not character.isprintable()]:
        raise ValueError(f"{path}: an alphabet has signs that can be written, got {unwritable!r}")
    if len(characters) < 2:
        raise ValueError(f"{path}: need the characters of an alphabet, got none")
    return characters


def shown(characters: Iterable[str]) -> str:
    """Some of the characters for a message; one that nobody would see by its number."""
    return " ".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in itertools.islice(characters, 20))


def escaped(name: str) -> str:
    """A file's name for tables and JSON; what they cannot hold, as tabs and odd bytes, is as Python writes it."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in name
    )


def default_corpora(folder: Path) -> list[Path]:
    """The files of :data:`DEFAULT_CORPORA` that are in a folder."""
    files = (folder / f"{name}{suffix}" for name in DEFAULT_CORPORA for suffix in (".txt.xz", ".txt"))
    return [path for path in files if path.is_file()]


class PhraseSource:
    """Random phrases of line length.

    Raises:
        ValueError: there is no sentence to take them from.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        if not sentences:
            raise ValueError("no sentences to take phrases from")
        self._sentences = sentences

    @classmethod
    def from_folder(cls, folder: Path, most: int = 120_000, extra: Sequence[str] = ()) -> PhraseSource:
        """Reads up to ``most`` sentences of each of the :func:`default_corpora` of a folder."""
        sentences = list(extra)
        for path in default_corpora(folder):
            sentences.extend(s for s, _ in zip(read_sentences(path), range(most), strict=False))
        return cls(sentences)

    def phrase(self, rng: np.random.Generator, shortest: int = 8, longest: int = 70) -> str:
        """A run of words, or now and then a form's entry, figures, sums, capitals, or quoted and bracketed words."""
        kind = rng.random()
        if kind < 0.12:
            return _oddity(rng)
        if kind < 0.24:
            return self.form_entry(rng)
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

    def form_entry(self, rng: np.random.Generator) -> str:
        """What people write in the fields of forms: a date, a number, an amount, a code, an e-mail address."""
        makers = (_date, _telephone_number, _amount, _reference, _postcode, self._address)
        return makers[int(rng.integers(len(makers)))](rng)

    def _address(self, rng: np.random.Generator) -> str:
        """An e-mail address of words of the corpus."""
        words: list[str] = []
        while len(words) < 3:
            sentence = self._sentences[int(rng.integers(len(self._sentences)))]
            words += [word for word in sentence.split(" ") if word.isascii() and word.isalpha()] or ["office"]
        name, other, host = (words[int(i)] for i in rng.permutation(len(words))[:3])
        join, domain = rng.choice([".", "_", "-", ""]), rng.choice(["com", "org", "net", "co.uk", "de", "fr"])
        return f"{name}{join}{other}@{host}.{domain}".lower()


def _digits(rng: np.random.Generator, count: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, count))


def _date(rng: np.random.Generator) -> str:
    day, month, year = int(rng.integers(1, 32)), int(rng.integers(1, 13)), int(rng.integers(1900, 2030))
    return [
        f"{day:02d}/{month:02d}/{year}",
        f"{day} {month_name[month]} {year}",
        f"{month_name[month][:3]}. {day}, {year}",
        f"{year}-{month:02d}-{day:02d}",
        f"{day}.{month}.{year % 100:02d}",
    ][int(rng.integers(5))]


def _telephone_number(rng: np.random.Generator) -> str:
    run = _digits(rng, 12)
    return [
        f"+{run[:2]} {run[2:4]} {run[4:8]} {run[8:]}",
        f"({run[:3]}) {run[3:6]}-{run[6:10]}",
        f"0{run[:4]} {run[4:10]}",
        " ".join(run[i : i + 2] for i in range(0, 10, 2)),
    ][int(rng.integers(4))]


def _amount(rng: np.random.Generator) -> str:
    value, cents = int(rng.integers(0, 10 ** int(rng.integers(1, 6)))), _digits(rng, 2)
    return [f"£{value:,}.{cents}", f"{value}.{cents} €", f"${value:,}", f"{value % 101} %"][
        int(rng.integers(4))
    ]


def _reference(rng: np.random.Generator) -> str:
    # About as many digits as letters.
    return "".join(rng.choice(list(ascii_uppercase + 3 * digits), int(rng.integers(5, 11))))


def _postcode(rng: np.random.Generator) -> str:
    letters = "".join(rng.choice(list(ascii_uppercase), 4))
    return f"{letters[:2]}{int(rng.integers(1, 21))} {int(rng.integers(1, 10))}{letters[2:]}"


def _dressed(phrase: str, rng: np.random.Generator) -> str:
    kind = rng.random()
    words = phrase.split(" ")
    at = int(rng.integers(len(words)))
    if kind < 0.20:
        return phrase.upper()
    if kind < 0.24:
        words[at] = f'"{words[at]}"'
    elif kind < 0.28:
        words[at] = f"({words[at]})"
    elif kind < 0.32:
        words[at] = words[at].capitalize() + str(rng.choice(list("!?;:")))
    elif kind < 0.36:
        words.insert(at, _number(rng))
    elif kind < 0.38:
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
