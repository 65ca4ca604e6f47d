"""How a caller wants an image read, in the domain's own terms, checked once."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from longhand_server.alphabet import Alphabet
from longhand_server.errors import InvalidRequestError

MAX_ALTERNATIVES = 100
MAX_HOTWORDS = 1000
MAX_HOTWORD_LENGTH = 100
MAX_ALLOWED_CHARACTERS = 10_000
DEFAULT_HOTWORD_BOOST = 2.0

# Bounds of the decoder's settings, both inclusive.
_BOUNDS: dict[str, tuple[float, float]] = {
    "beam_width": (1, 1000),
    "word_weight": (0.0, 10.0),
    "word_bonus": (-20.0, 20.0),
    "character_weight": (0.0, 10.0),
    "character_bonus": (-20.0, 20.0),
    "unknown_word_penalty": (0.0, 100.0),
    "temperature": (0.1, 10.0),
}


@dataclass(frozen=True)
class RecognitionOptions:
    """How to read an image. None means the model's tuned setting.

    Attributes:
        greedy: The best label of each frame instead of a beam search.
        beam_width: Hypotheses kept after each frame, 1 to 1000.
        word_weight: Factor of the word model's log-probability, 0 to 10.
        word_bonus: Added for each word, -20 to 20.
        character_weight: Factor of the character model's log-probability, 0 to 10.
        character_bonus: Added for each character, -20 to 20.
        unknown_word_penalty: Subtracted for each word that the word model does not know, 0 to 100.
        temperature: Divisor of the network's log-probabilities, 0.1 to 10.
        hotwords: Words to favour, each with what it adds to a hypothesis that holds it, 0 to 20; kept in NFC.
        alternatives: Readings to give, 1 to 100.
        allowed_characters: The only characters that may be read; empty = all.
        include_words: Whether to place each word.
        include_characters: Whether to place each character.

    Raises:
        InvalidRequestError: A value is out of range; its ``field`` names it as the request does.
    """

    greedy: bool = False
    beam_width: int | None = None
    word_weight: float | None = None
    word_bonus: float | None = None
    character_weight: float | None = None
    character_bonus: float | None = None
    unknown_word_penalty: float | None = None
    temperature: float | None = None
    hotwords: tuple[tuple[str, float], ...] = ()
    alternatives: int = 1
    allowed_characters: str = ""
    include_words: bool = False
    include_characters: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # refuses NaN as well
                _refuse(f"decoder.{name}", value, f"{low:g} to {high:g}")
        if not 1 <= self.alternatives <= MAX_ALTERNATIVES:
            _refuse("alternatives", self.alternatives, f"1 to {MAX_ALTERNATIVES}")
        check_hotword_count(len(self.hotwords))
        if len(self.allowed_characters) > MAX_ALLOWED_CHARACTERS:
            got = f"{len(self.allowed_characters)} characters"
            _refuse("allowed_characters", got, f"at most {MAX_ALLOWED_CHARACTERS}")
        for index, (word, boost) in enumerate(self.hotwords):
            where = f"hotwords[{index}]"
            if not 1 <= len(word) <= MAX_HOTWORD_LENGTH or " ".join(word.split()) != word:
                _refuse(
                    f"{where}.text",
                    f"{len(word)} characters",
                    f"1 to {MAX_HOTWORD_LENGTH}, words separated by single spaces",
                )
            if not (math.isfinite(boost) and 0 <= boost <= 20):
                _refuse(f"{where}.boost", boost, "0 to 20")
        # Clients may send letters and their accents apart, as macOS does in file names; a model has them in one.
        composed = tuple((unicodedata.normalize("NFC", word), boost) for word, boost in self.hotwords)
        object.__setattr__(self, "hotwords", composed)

    def beam_settings(self) -> dict[str, object]:
        """The beam search settings that differ from the model's own, by the decoder's names."""
        given = {name: getattr(self, name) for name in _BOUNDS}
        settings: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        if self.alternatives > 1:
            settings["alternatives"] = self.alternatives
        if self.hotwords:
            settings["hotwords"] = self.hotwords
        if self.allowed_characters:
            settings["allowed_characters"] = self.allowed_characters
        return settings

    def check_characters(self, alphabet: Alphabet) -> None:
        """Raises InvalidRequestError where a character asked for is not in the model's alphabet."""
        wanted = [("allowed_characters", self.allowed_characters)]
        wanted += [(f"hotwords[{index}].text", word) for index, (word, _) in enumerate(self.hotwords)]
        for where, text in wanted:
            unknown = sorted({character for character in text if character not in alphabet})
            if unknown:
                raise InvalidRequestError(
                    f"options.{where}: the model cannot write {' '.join(unknown[:10])}",
                    field=f"options.{where}",
                )


def check_hotword_count(count: int) -> None:
    """Raises InvalidRequestError where there are more hotwords than are taken."""
    if count > MAX_HOTWORDS:
        _refuse("hotwords", f"{count} words", f"at most {MAX_HOTWORDS}")


def _refuse(name: str, value: object, needed: str) -> None:
    raise InvalidRequestError(f"options.{name}: got {value}, need {needed}", field=f"options.{name}")
