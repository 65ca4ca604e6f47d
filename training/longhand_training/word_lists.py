"""Words that the corpora lack, from the frequency lists of the package wordfreq (data: CC BY-SA 4.0).

They give the language models a vocabulary, of names and of French above all, and no running text. (R. Speer,
"wordfreq", 2022.)
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import wordfreq

from longhand_training.text import DEFAULT_CHARACTERS

_LINE = 10
_ELIDED_BEFORE = frozenset("aeiouyhâêîôûéèàœ")
_CHARACTERS = frozenset(DEFAULT_CHARACTERS)


@dataclass(frozen=True)
class WordList:
    """How much of a language is taken, commonest first; the lists are in lower case.

    Attributes:
        language: as wordfreq names it, such as ``fr``.
        words: taken as they are.
        capitalised: of these, how many are taken with a capital as well (names, starts of sentences).
        elided: of these, how many are taken after ``l'`` and ``d'`` as well where French elides: the word model
            keeps apostrophes inside words.
    """

    language: str
    words: int
    capitalised: int
    elided: int = 0


WORD_LISTS = (
    WordList("fr", words=60_000, capitalised=30_000, elided=20_000),
    WordList("en", words=50_000, capitalised=30_000),
)


def listed_words(lists: Sequence[WordList] = WORD_LISTS) -> list[str]:
    """The words of some lists, each once, in alphabetical order.

    Only words of letters of the alphabet, with apostrophes inside.

    Raises:
        LookupError: wordfreq has no such language.
    """
    found: set[str] = set()
    for taken in lists:
        ranked = itertools.islice(wordfreq.iter_wordlist(taken.language), taken.words)
        words = [word for word in ranked if word.replace("'", "").isalpha() and _CHARACTERS.issuperset(word)]
        capitalised = [word.capitalize() for word in words[: taken.capitalised]]
        vowels = [word for word in words[: taken.elided] if word[0] in _ELIDED_BEFORE and len(word) > 2]
        elided = vowels + [word.capitalize() for word in vowels]
        found.update(words, capitalised, (f"{article}'{word}" for article in "ld" for word in elided))
    return sorted(found)


def word_lines(words: Sequence[str]) -> Iterator[str]:
    """The words in random order (always the same), ten a line, for an estimator that takes sentences."""
    shuffled = list(words)
    random.Random(1).shuffle(shuffled)
    for start in range(0, len(shuffled), _LINE):
        yield " ".join(shuffled[start : start + _LINE])
