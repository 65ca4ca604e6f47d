"""What a beam search may be told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BeamSearchOptions:
    """Options of one search; every logarithm is natural.

    The search maximises, over texts y for network output x,

        log P(y | x)
        + word_weight * log P_word(tokens of y) + word_bonus * |tokens of y|
        - unknown_word_penalty * |words of y outside the vocabulary|
        + character_weight * log P_char(y) + character_bonus * |y|
        + the boosts of the hotwords in y

    where figures and codes may count less (`figures_weight`). No weight, bonus, penalty, boost or `confidence_scale`
    may be larger than a million, whatever its sign.

    Raises:
        TypeError: `hotwords` is no iterable, or one of them neither a string nor a (string, number) pair.
        ValueError: `hotwords` is a string, or a boost larger than any float; and, where a decoder is given the
            options, one of them is out of range.
    """

    beam_width: int = 50
    """Prefixes kept after a frame, at least 1."""
    beam_threshold: float = -10.0
    """A prefix that scores below the best one plus this is dropped; log, at most 0, -inf for no threshold. What the
    best one has for a hotword that has only begun does not count."""
    token_threshold: float = -6.0
    """A label below this log-probability in a frame starts no new prefix there; at most 0, -inf for none."""
    hard_token_threshold: bool = False
    """True: such a label is impossible in that frame, also as the blank or as a repeat; the frame's best label always
    stays possible. Where the network is sure of one label no model overrules it, and the search is faster."""
    max_tokens_per_frame: int = 0
    """At most this many labels start new prefixes in a frame; 0 for no limit."""
    temperature: float = 1.0
    """0.001 to 1000; the search sees log_softmax(input / temperature). Above 1 flattens an over-sure network."""
    input: Literal["log_probs", "logits"] = "log_probs"
    """What the numbers are: log-probabilities (at most 0), or logits, which a log-softmax is applied to."""
    path_merge: Literal["sum", "max"] = "sum"
    """How paths to one text are joined: their probability summed, or the best one's taken."""
    merge_histories: bool = False
    """True: of prefixes that the models can no longer tell apart only the best is kept, so that a beam reaches
    further for the best text; alternatives and confidences know less of what lies far back. Approximate: best text
    and scores may differ slightly from those of the search without it, even with an unlimited beam."""

    word_weight: float = 0.3
    """Multiplies the word model's log-probability; at least 0."""
    word_bonus: float = 0.5
    """Added for each token of the word model; log."""
    unknown_word_penalty: float = 3.5
    """Subtracted for each word (no number) outside the vocabulary; log, at least 0."""
    open_unknown_penalty: float | None = None
    """Cost of an unknown word while it is still open (log, at least 0); beyond six characters it grows with length,
    so that long unknown words leave wide beams. None: the final cost applies from the first character."""
    character_weight: float = 0.35
    """Multiplies the character model's log-probability; at least 0."""
    prior_weight: float = 1.0
    """Label probabilities are divided by the decoder's `label_priors` to the power of this times `character_weight`;
    at least 0. A network knows how often each character occurs, and so does the character model: without this it
    counts twice. Does nothing without priors, without a character model, and for the blank. (Y. Miao et al. 2015,
    "EESEN: End-to-End Speech Recognition using Deep RNN Models and WFST-based Decoding".)"""
    character_bonus: float = 0.0
    """Added for each character; log."""
    figures_weight: float = 1.0
    """0 to 1: what both models and their bonuses say of figures counts this much. Figures are digits, the numbers
    they make and a character behind one; in codes such as "SW1A 2AA" also a word in capitals right beside a digit,
    with its `unknown_word_penalty`, and its characters where they follow the digit; the priors of digits too. Text
    knows little of the next telephone number or reference. Does nothing where `word_splitting` is "spaces"."""
    word_splitting: Literal["letters", "spaces"] = "letters"
    """Where words end: between letters, digits and punctuation (as `tokenize_words`), or at spaces only."""
    fold_capitals: bool = False
    """True: a line whose letters are nearly all capitals is weighed by the models as if they were small, and still
    comes out in capitals; a small letter is made unlikely there, and hotwords stand for either. Text for language
    models is in small letters: without this they know next to no word of such a line. Not in streams, which see no
    whole line, nor with a closed lexicon."""
    closed_lexicon: bool = False
    """True: read only words of the vocabulary."""
    sentence_start: bool = False
    """True: the models start behind `<s>`; False: somewhere in a text, and the character model behind a space."""
    sentence_end: bool = False
    """True: the models score `</s>` at the end of the line."""
    context: str = ""
    """Text that stands before the line: the models start behind it."""

    hotwords: Sequence[str] | Mapping[str, float] | Sequence[tuple[str, float]] = ()
    """Words or phrases to expect, each with a boost (log) or else `hotword_boost`. Their words are known."""
    hotword_boost: float = 3.0
    """Added for each occurrence of a hotword that has no boost of its own; log."""
    allowed_characters: str | None = None
    """The only characters that may be read; None for all."""

    alternatives: int = 1
    """Hypotheses returned, at least 1; fewer if the beam holds fewer."""
    confidence_scale: float = 1.0
    """Confidences are shares of softmax(confidence_scale * score) over the beam; above 0."""
    span_confidences: bool = True
    """False: characters and words have confidence 0; with hundreds of alternatives these take most of the time."""

    def __post_init__(self) -> None:
        hotwords = self.hotwords
        if isinstance(hotwords, str):
            raise ValueError(f"hotwords must be a sequence of words, got the string {hotwords!r}")
        if not isinstance(hotwords, Iterable):
            raise TypeError(f"hotwords must be a sequence of words or map them to boosts, got {hotwords!r}")
        pairs = hotwords.items() if isinstance(hotwords, Mapping) else hotwords
        object.__setattr__(self, "hotwords", tuple(_hotword(entry) for entry in pairs))


def _hotword(entry: object) -> str | tuple[str, float]:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, bytes) or not isinstance(entry, Sequence) or len(entry) != 2:
        raise TypeError(f"a hotword must be a string or a (string, number) pair, got {entry!r}")
    text, boost = entry
    if not isinstance(text, str):
        raise TypeError(f"a hotword must be a string, got {text!r}")
    if not isinstance(boost, Real):
        raise TypeError(f"the boost of hotword {text!r} must be a number, got {boost!r}")
    try:
        return text, float(boost)
    except OverflowError:
        raise ValueError(f"the boost of hotword {text!r} is out of range, got {boost!r}") from None


UNLIMITED = -math.inf
"""For `beam_threshold` and `token_threshold`: no threshold."""
