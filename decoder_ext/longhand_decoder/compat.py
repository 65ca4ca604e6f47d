"""The entry point and the methods that users of pyctcdecode know: changing over is one import.

What differs stands in the README ("From pyctcdecode").
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from longhand_decoder._core import Hypothesis, NgramLanguageModel, looks_like_probabilities
from longhand_decoder.decoder import CtcBeamSearchDecoder
from longhand_decoder.options import BeamSearchOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _FloatArray = NDArray[np.floating[Any]]

_BLANK = re.compile(r"[<\[]pad[>\]]", re.IGNORECASE)
_UNKNOWN = re.compile(r"[<\[]unk[>\]]", re.IGNORECASE)
_SPECIAL = re.compile(r"[<\[].+[>\]]")
_FIRST_PRIVATE_USE = 0xE000
_LARGEST = 1e6  # see BeamSearchOptions


class OutputBeam(NamedTuple):
    """One hypothesis, in pyctcdecode's order."""

    text: str
    """White space normalised."""
    last_lm_state: str
    """The text so far, to be passed as `lm_start_state` with the chunk that follows."""
    text_frames: list[tuple[str, tuple[int, int]]]
    """Each word with its first frame and the one behind its last."""
    logit_score: float
    """log P(text | logits)."""
    lm_score: float
    """The total that the search maximises: `logit_score` and everything the models add."""


class BeamSearchDecoderCTC:
    """A decoder with pyctcdecode's methods that decode; `build_ctcdecoder` makes one."""

    def __init__(self, decoder: CtcBeamSearchDecoder) -> None:
        self._decoder = decoder
        self._latest: tuple[tuple[object, ...], BeamSearchOptions] = ((), decoder.options)

    @property
    def decoder(self) -> CtcBeamSearchDecoder:
        """The decoder behind it, with everything that pyctcdecode has no name for."""
        return self._decoder

    def decode(
        self,
        logits: _FloatArray,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        lm_start_state: str | None = None,
    ) -> str:
        """The best text.

        Args:
            logits: (T, V) logits or log-probabilities.
            beam_width: prefixes kept after a frame.
            beam_prune_logp: prefixes scored below the best plus this are dropped.
            token_min_logp: labels below this log-probability start no prefix in a frame.
            hotwords: words to expect.
            hotword_weight: added to the score for each of them; log.
            lm_start_state: `last_lm_state` of the chunk before.

        Raises:
            ValueError: wrong shape, a NaN, probabilities, or an argument out of range.
        """
        options = self._options(
            beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight, lm_start_state, True
        )
        return _normalised(self._decoder.decode_text(_checked(logits), options))

    def decode_beams(
        self,
        logits: _FloatArray,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        prune_history: bool = False,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        lm_start_state: str | None = None,
    ) -> list[OutputBeam]:
        """All that the beam holds at the end, best first.

        Args:
            logits: (T, V) logits or log-probabilities.
            beam_width: prefixes kept after a frame.
            beam_prune_logp: prefixes scored below the best plus this are dropped.
            token_min_logp: labels below this log-probability start no prefix in a frame.
            prune_history: keeps one prefix of those that the models cannot tell apart any more.
            hotwords: words to expect.
            hotword_weight: added to the score for each of them; log.
            lm_start_state: `last_lm_state` of the chunk before.

        Raises:
            ValueError: wrong shape, a NaN, probabilities, or an argument out of range.
        """
        options = self._options(
            beam_width,
            beam_prune_logp,
            token_min_logp,
            hotwords,
            hotword_weight,
            lm_start_state,
            prune_history,
        )
        hypotheses = self._decoder.decode(_checked(logits), _all(options))
        return [_output_beam(hypothesis, options.context) for hypothesis in hypotheses]

    def decode_batch(
        self,
        pool: object,
        logits_list: Sequence[_FloatArray],
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
    ) -> list[str]:
        """The best text of each item, on the decoder's own threads.

        Args:
            pool: accepted and not used: pass None.
            logits_list: (T_i, V) logits or log-probabilities.
            beam_width: prefixes kept after a frame.
            beam_prune_logp: prefixes scored below the best plus this are dropped.
            token_min_logp: labels below this log-probability start no prefix in a frame.
            hotwords: words to expect.
            hotword_weight: added to the score for each of them; log.

        Raises:
            ValueError: an item has the wrong shape, a NaN, or probabilities; or an argument is out of range.
        """
        options = self._options(
            beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight, None, True
        )
        texts = self._decoder.decode_text_batch(_checked_items(logits_list), options)
        return [_normalised(text) for text in texts]

    def decode_beams_batch(
        self,
        pool: object,
        logits_list: Sequence[_FloatArray],
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        prune_history: bool = False,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
    ) -> list[list[OutputBeam]]:
        """All that the beam holds at the end of each item, best first, on the decoder's own threads.

        Args:
            pool: accepted and not used: pass None.
            logits_list: (T_i, V) logits or log-probabilities.
            beam_width: prefixes kept after a frame.
            beam_prune_logp: prefixes scored below the best plus this are dropped.
            token_min_logp: labels below this log-probability start no prefix in a frame.
            prune_history: keeps one prefix of those that the models cannot tell apart any more.
            hotwords: words to expect.
            hotword_weight: added to the score for each of them; log.

        Raises:
            ValueError: an item has the wrong shape, a NaN, or probabilities; or an argument is out of range.
        """
        options = self._options(
            beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight, None, prune_history
        )
        batch = self._decoder.decode_batch(_checked_items(logits_list), _all(options))
        return [[_output_beam(hypothesis, "") for hypothesis in hypotheses] for hypotheses in batch]

    def _options(
        self,
        beam_width: int,
        beam_prune_logp: float,
        token_min_logp: float,
        hotwords: Iterable[str] | None,
        hotword_weight: float,
        lm_start_state: str | None,
        prune_history: bool,
    ) -> BeamSearchOptions:
        if isinstance(hotwords, str):
            raise ValueError(f"hotwords must be a sequence of words, got the string {hotwords!r}")
        phrases = () if hotwords is None else list(hotwords)
        for phrase in phrases:
            if not isinstance(phrase, str):
                raise TypeError(f"a hotword must be a string, got {phrase!r}")
        words = tuple(dict.fromkeys(word for phrase in phrases for word in phrase.split()))
        key = (
            beam_width, beam_prune_logp, token_min_logp, words, hotword_weight, lm_start_state, prune_history
        )  # fmt: skip
        known, options = self._latest
        if known != key:
            # In the caller's names, before the decoder complains in its own.
            _require_between("beam_prune_logp", -math.inf, 0.0, beam_prune_logp)
            _require_between("token_min_logp", -math.inf, 0.0, token_min_logp)
            _require_between("hotword_weight", -_LARGEST, _LARGEST, hotword_weight)
            options = dataclasses.replace(
                self._decoder.options,
                beam_width=beam_width,
                beam_threshold=beam_prune_logp,
                token_threshold=token_min_logp,
                hotwords=words,
                hotword_boost=hotword_weight,
                context=lm_start_state or "",
                merge_histories=prune_history,
            )
            self._latest = (key, options)
        return options


def _all(options: BeamSearchOptions) -> BeamSearchOptions:
    """The options for everything that the beam holds; pyctcdecode's beams have no confidences."""
    return dataclasses.replace(options, alternatives=options.beam_width, span_confidences=False)


def build_ctcdecoder(
    labels: Sequence[str],
    kenlm_model_path: str | os.PathLike[str] | None = None,
    unigrams: Collection[str] | None = None,
    alpha: float = 0.5,
    beta: float = 1.5,
    unk_score_offset: float = -10.0,
    lm_score_boundary: bool = True,
    threads: int = 1,
) -> BeamSearchDecoderCTC:
    """Builds a decoder as pyctcdecode's function of this name does, with its defaults.

    Args:
        labels: one for each column. The blank is "", "_", "<pad>" or "[PAD]", or else one more column behind
            the last; "|" stands for a space where there is none; other names in brackets are never read.
        kenlm_model_path: a word model; words end at spaces only.
        unigrams: the known words, in place of the model's vocabulary; those that it lacks are left out.
        alpha: weight of the language model.
        beta: added for each word.
        unk_score_offset: added to the log10 score of a word that is not known, at most 0.
        lm_score_boundary: whether the model scores `<s>` and `</s>`.
        threads: for batches.

    Raises:
        ValueError: BPE labels or others of several characters, or an argument out of range.
        LanguageModelError: the model cannot be loaded.
    """
    _require_between("alpha", 0.0, _LARGEST, alpha)
    _require_between("beta", -_LARGEST, _LARGEST, beta)
    _require_between("unk_score_offset", -_LARGEST, 0.0, unk_score_offset)
    if isinstance(unigrams, str):
        raise ValueError(f"unigrams must be a collection of words, got the string {unigrams!r}")
    names, forbidden = _read_labels(labels)
    options = BeamSearchOptions(
        input="logits",
        hard_token_threshold=True,
        word_splitting="spaces",
        word_weight=alpha,
        word_bonus=beta,
        unknown_word_penalty=min(-alpha * unk_score_offset * math.log(10), _LARGEST),
        open_unknown_penalty=-unk_score_offset,
        sentence_start=lm_score_boundary,
        sentence_end=lm_score_boundary,
        character_bonus=0.0,
        allowed_characters="".join(name for name in names if name not in forbidden) if forbidden else None,
    )
    model = NgramLanguageModel(kenlm_model_path) if kenlm_model_path is not None else None
    lexicon = None
    if unigrams is not None and model is not None:
        lexicon = sorted(word for word in unigrams if word in model and word.split() == [word])
        if not lexicon:
            raise ValueError(f"unigrams: none of the {len(unigrams)} words is in the model")
    decoder = CtcBeamSearchDecoder(names, word_model=model, lexicon=lexicon, options=options, threads=threads)
    return BeamSearchDecoderCTC(decoder)


def _read_labels(labels: Sequence[str]) -> tuple[list[str], set[str]]:
    """The labels as this decoder wants them, and those among them that stand for no character."""
    if any(label.startswith("##") or label.startswith("\u2581") for label in labels):
        raise ValueError("these look like BPE labels, which are not supported: labels are single characters")
    names = ["" if _BLANK.fullmatch(label) else label for label in labels]
    if "" not in names and "_" in names:
        names[names.index("_")] = ""
    if "" not in names:
        names.append("")
    if " " not in names and "|" in names:
        names[names.index("|")] = " "
    forbidden: set[str] = set()
    for column, name in enumerate(names):
        if _UNKNOWN.fullmatch(name):
            names[column] = "\u2047"
        elif _SPECIAL.fullmatch(name):
            names[column] = chr(_FIRST_PRIVATE_USE + len(forbidden))
            forbidden.add(names[column])
    return names, forbidden


def _require_between(name: str, least: float, most: float, value: float) -> None:
    try:
        within = least <= value <= most
    except TypeError:
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not within:
        raise ValueError(f"{name} must be between {least:.10g} and {most:.10g}, got {value}")


def _checked(logits: _FloatArray) -> _FloatArray:
    if looks_like_probabilities(logits):
        raise ValueError("these look like probabilities: pass logits or log-probabilities, such as np.log(p)")
    return logits


def _checked_items(items: Iterable[_FloatArray]) -> list[_FloatArray]:
    checked = []
    for index, logits in enumerate(items):
        try:
            checked.append(_checked(logits))
        except (TypeError, ValueError) as problem:
            raise type(problem)(f"item {index}: {problem}") from None
    return checked


def _normalised(text: str) -> str:
    return " ".join(text.split())


def _output_beam(hypothesis: Hypothesis, context: str) -> OutputBeam:
    frames = [(word.text, (word.first_frame, word.last_frame + 1)) for word in hypothesis.words]
    text = _normalised(hypothesis.text)
    return OutputBeam(
        text, _normalised(f"{context} {text}"), frames, hypothesis.acoustic_score, hypothesis.score
    )
