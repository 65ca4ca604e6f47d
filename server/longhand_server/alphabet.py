"""Label ids and text: the alphabet of a model, and the folding of typographic variants."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

# One form for signs that a hand does not tell apart (NFC first). What is left out here is kept as it is.
_FOLDED = {
    "\u2018": "'",
    "\u2019": "'",
    "\u201a": "'",
    "\u02bc": "'",
    "\u2032": "'",
    "\u00b4": "'",
    "`": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u201e": '"',
    "\u00ab": '"',
    "\u00bb": '"',
    "\u2033": '"',
    "\u2010": "-",
    "\u2011": "-",
    "\u2012": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2015": "-",
    "\u2212": "-",
    "\u2026": "...",
    "\u00ba": "\u00b0",
    "\u00d7": "x",
    "\u2044": "/",
    "\u00ad": "",
    "\u200b": "",
    "\ufeff": "",
}
_FOLD_TABLE = str.maketrans(_FOLDED)


def fold_text(text: str) -> str:
    """Writes a text the way labels are written.

    Unicode NFC, typographic quotes, dashes, ellipsis and primes in their ASCII form, every run of
    white space one space, none at either end.
    """
    text = unicodedata.normalize("NFC", text).translate(_FOLD_TABLE)
    return " ".join(text.split())


class Alphabet:
    """The characters a network can write; label 0 is the CTC blank, character i has label i + 1."""

    def __init__(self, characters: Sequence[str]) -> None:
        """Numbers the characters in the order given.

        Args:
            characters: distinct single characters (one code point each, NFC).

        Raises:
            ValueError: an entry is not one character, or stands twice.
        """
        for character in characters:
            if not isinstance(character, str) or len(character) != 1:
                raise ValueError(f"alphabet: each entry must be one character, got {character!r}")
        self.characters = tuple(characters)
        self._ids = {character: i + 1 for i, character in enumerate(self.characters)}
        if len(self._ids) != len(self.characters):
            twice = sorted({c for c in self.characters if self.characters.count(c) > 1})
            raise ValueError(f"alphabet: characters stand twice: {twice!r}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The text of every label, the blank's (label 0) being ``""``."""
        return ("", *self.characters)

    def __len__(self) -> int:
        """Number of labels V, the blank included."""
        return len(self.characters) + 1

    def __contains__(self, character: object) -> bool:
        return character in self._ids

    def encode(self, text: str) -> list[int]:
        """Label ids of a text.

        Raises:
            ValueError: a character is not in the alphabet (named in the message).
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ValueError(f"character {error.args[0]!r} is not in the alphabet") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of label ids; blanks vanish, repeats stay."""
        labels = self.labels
        return "".join(labels[i] for i in ids)
