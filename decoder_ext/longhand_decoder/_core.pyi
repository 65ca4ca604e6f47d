import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longhand_decoder.options import BeamSearchOptions

_FloatArray = NDArray[np.floating[Any]]
_Result = list[Hypothesis] | ValueError | TypeError | MemoryError

class LanguageModelError(ValueError):
    """The file cannot be used as a language model; the message names it and what is wrong."""

class NgramLanguageModel:
    """A KenLM model, binary or ARPA. Shared between decoders and threads.

    Args:
        path: the file.
        mapped: whether a binary file is mapped, which costs memory once for all processes; then it must not be
            written to while it is in use. Otherwise it is read.

    Raises:
        LanguageModelError: the file cannot be used; the message names it and what is wrong.
    """

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool = True) -> None: ...
    @property
    def order(self) -> int:
        """The length of its longest n-grams."""
    @property
    def path(self) -> str: ...
    def score(self, tokens: Sequence[str], bos: bool = False, eos: bool = False) -> float:
        """Natural log-probability of the tokens, each given those before it; 0 counts as e^-10000."""
    def __contains__(self, token: str) -> bool: ...
    def __len__(self) -> int: ...

class CharacterSpan:
    """One character of a hypothesis and where it stands."""

    def __init__(self, *, text: str, first_frame: int, last_frame: int, confidence: float) -> None: ...
    @property
    def text(self) -> str: ...
    @property
    def first_frame(self) -> int:
        """On the most probable path through the input that spells the text.

        Whatever thresholds and label priors the search used. Spread evenly where tens of thousands of frames tell
        next to nothing.
        """
    @property
    def last_frame(self) -> int:
        """Inclusive."""
    @property
    def confidence(self) -> float:
        """0..1: the share of the beam's probability that has this character in this place."""

class WordSpan:
    """One word of a hypothesis (what stands between spaces) and where it stands."""

    def __init__(self, *, text: str, first_frame: int, last_frame: int, confidence: float) -> None: ...
    @property
    def text(self) -> str: ...
    @property
    def first_frame(self) -> int:
        """Of its first character."""
    @property
    def last_frame(self) -> int:
        """Of its last character, inclusive."""
    @property
    def confidence(self) -> float:
        """0..1: the share of the beam's probability that has this whole word in this place."""

class Hypothesis:
    """A text that the line may say. Immutable; all logarithms are natural."""

    def __init__(
        self,
        *,
        text: str,
        score: float,
        acoustic_score: float,
        word_model_score: float,
        character_model_score: float,
        confidence: float,
        characters: Iterable[CharacterSpan] = (),
        words: Iterable[WordSpan] = (),
    ) -> None: ...
    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float:
        """What the search maximises: see BeamSearchOptions."""
    @property
    def acoustic_score(self) -> float:
        """Log P(text | network output), what `prior_weight` takes off included."""
    @property
    def word_model_score(self) -> float:
        """Log P_word(text), unweighted; 0 without a word model, and where the options give words no say."""
    @property
    def character_model_score(self) -> float:
        """Log P_char(text), unweighted; 0 without a character model or with a weight of 0."""
    @property
    def confidence(self) -> float:
        """0..1: the share of the beam's probability that is this text's."""
    @property
    def characters(self) -> tuple[CharacterSpan, ...]: ...
    @property
    def words(self) -> tuple[WordSpan, ...]: ...

class PreparedOptions: ...

class DecoderStream:
    """One line in progress; for one thread at a time: RuntimeError while another one is at work on it."""

    def push(self, log_probs: _FloatArray) -> None:
        """Takes the next frames, (T, V). Where one is refused (ValueError), those before it stay: see `frames`."""
    def best(self) -> list[Hypothesis]:
        """The hypotheses if the line ended here, best first."""
    def finish(self) -> list[Hypothesis]:
        """The result; a second call and a later `push` raise RuntimeError."""
    @property
    def frames(self) -> int:
        """How many frames were pushed."""

class Decoder:
    def __init__(
        self,
        labels: Sequence[str],
        word_model: NgramLanguageModel | None,
        character_model: NgramLanguageModel | None,
        lexicon: Sequence[str],
        label_priors: Sequence[float],
        options: BeamSearchOptions,
        threads: int,
    ) -> None: ...
    def prepare(self, options: BeamSearchOptions) -> PreparedOptions: ...
    def decode(self, log_probs: _FloatArray, options: PreparedOptions) -> list[Hypothesis]: ...
    def decode_text(self, log_probs: _FloatArray, options: PreparedOptions) -> str: ...
    def decode_text_batch(
        self, log_probs: Sequence[_FloatArray], options: PreparedOptions
    ) -> list[str | ValueError | TypeError | MemoryError]: ...
    def decode_batch(self, log_probs: Sequence[_FloatArray], options: PreparedOptions) -> list[_Result]: ...
    def decode_greedy(self, log_probs: _FloatArray, options: PreparedOptions) -> Hypothesis: ...
    def decode_greedy_batch(
        self, log_probs: Sequence[_FloatArray], options: PreparedOptions
    ) -> list[_Result]: ...
    def start(self, options: PreparedOptions) -> DecoderStream: ...

def looks_like_probabilities(log_probs: _FloatArray) -> bool: ...
def tokenize_words(text: str) -> list[str]:
    """The tokens of the word model in `text`.

    Runs of letters (apostrophes between letters included) and runs of digits are one token each; every other
    character but space is one of its own. Case is kept.
    """
