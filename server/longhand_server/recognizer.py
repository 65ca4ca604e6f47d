"""Normalised lines in, transcriptions out: the network and the CTC decoder put together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, Hypothesis, NgramLanguageModel
from longhand_server.bundle import ModelBundle
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidModelError
from longhand_server.image import LineImage
from longhand_server.looks import other_looks, upside_down
from longhand_server.options import RecognitionOptions
from longhand_server.runtime import LineModel

# A line is read again where the best text of the first reading is less sure than this: one in 30 or 40 English
# validation lines and one in 4 to 7 of hard hands, which hold many of the errors. More lines gain hardly more.
_UNSURE = 0.15
# A line whose best text scores less than this for each of its characters is looked at upside down, and turned where
# that scores so much more: lines seldom are. Of 100 that are, 99 are turned; of 100 English validation lines that are
# not, 2 are looked at, and of those of a hard hand 16.
_HOPELESS = -1.0
_TURNED_GAIN = 3.0
# So many labels of a frame at most begin new readings, most probable first: ordinary frames have a few, but
# a wide beam and a high temperature, which a request may ask for, would let all in.
_MOST_LABELS = 40


@dataclass(frozen=True)
class Span:
    """A word or a character and its place.

    Attributes:
        text: The word or character.
        confidence: 0 to 1.
        x_start: Left edge in pixels of the image.
        x_end: Right edge in pixels of the image.
    """

    text: str
    confidence: float
    x_start: float
    x_end: float


@dataclass(frozen=True)
class Alternative:
    """One reading of a line; scores are natural-log, the language model's with weights and bonuses."""

    text: str
    total_score: float
    acoustic_score: float
    language_model_score: float
    confidence: float


@dataclass(slots=True)
class Timings:
    """Where an image's time went, in milliseconds; filled in as the image goes its way.

    Images of one batch have the whole batch's times of network and decoder; those that were looked at again also
    what all further looks took.
    """

    decode_image_ms: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    beam_ms: float = 0.0
    total_ms: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True)
class Transcription:
    """What was read from one image.

    Attributes:
        text: The best reading; empty for a blank line.
        confidence: How sure the model is of it, 0 to 1.
        alternatives: The readings asked for, best first; the first one is ``text``.
        words: Words from left to right, where asked for.
        characters: Characters from left to right, spaces included, where asked for.
        image_width: Width of the image in pixels.
        image_height: Height of the image in pixels.
        timings: Where the time went.
        second_look: Whether the line was read again, since the first reading was unsure.
        rotation: Degrees, clockwise, by which the sent image was turned to be read: 0, 90, 180 or 270. Sizes and
            places are those of the turned image.
    """

    text: str
    confidence: float
    alternatives: tuple[Alternative, ...]
    words: tuple[Span, ...]
    characters: tuple[Span, ...]
    image_width: int
    image_height: int
    timings: Timings
    second_look: bool = False
    rotation: int = 0


def _always(_: int) -> bool:
    return True


def _nobody(_: Mapping[int, Transcription]) -> None:
    pass


def _is_hopeless(best: Hypothesis) -> bool:
    return best.score < _HOPELESS * max(len(best.text.strip(" ")), 1)


def _is_unsure(best: Hypothesis) -> bool:
    return best.confidence < _UNSURE


@dataclass(frozen=True)
class _MoreLooks:
    """Which lines are looked at again, how, and by how much another reading must score more than the first."""

    is_poor: Callable[[Hypothesis], bool]
    looks_at: Callable[[LineImage, LineFormat], tuple[LineImage, ...]]
    gain: float


# A line that is turned may be unsure still, and is then looked at as the others are.
_MORE_LOOKS = (_MoreLooks(_is_hopeless, upside_down, _TURNED_GAIN), _MoreLooks(_is_unsure, other_looks, 0.0))


class Recognizer:
    """Reads normalised lines with one model. Thread-safe.

    Args:
        bundle: The model.
        line_model: Its network, loaded.
        decoder_threads: Threads that decode one batch.
        second_look: Whether lines of which the model is unsure are read again, smaller and more upright, and those
            that it cannot make sense of upside down. Of all readings the one with the highest score counts. Without
            a language model scores do not tell which reading is better, and each line is read once.

    Raises:
        InvalidModelError: A language model or the decoder's settings are damaged.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        line_model: LineModel,
        *,
        decoder_threads: int = 1,
        second_look: bool = True,
    ) -> None:
        self.bundle = bundle
        self.line_model = line_model
        self._second_look = second_look
        try:
            self.defaults = BeamSearchOptions(**{"max_tokens_per_frame": _MOST_LABELS, **bundle.decoder})
            self._greedy_defaults = BeamSearchOptions(**bundle.greedy_decoder)
            self._decoder = CtcBeamSearchDecoder(
                bundle.alphabet.labels,
                word_model=_language_model(bundle.word_model_path),
                character_model=_language_model(bundle.character_model_path),
                label_priors=bundle.label_priors,
                options=self.defaults,
                threads=decoder_threads,
            )
        except (ValueError, TypeError) as error:
            raise InvalidModelError(f"model {bundle.name}: {str(error).splitlines()[0]}") from error

    def recognize(
        self,
        images: Sequence[LineImage],
        options: Sequence[RecognitionOptions],
        still_wanted: Callable[[int], bool] = _always,
    ) -> list[Transcription]:
        """Reads lines; item i of the result belongs to image i with options i.

        Args:
            images: The lines.
            options: How to read each of them.
            still_wanted: Whether anybody waits for image i; one that nobody waits for is not looked at again.
        """
        return self.transcribe(images, *self.infer(images), options, still_wanted)

    def infer(self, images: Sequence[LineImage]) -> tuple[list[NDArray[np.float32]], float]:
        """The network alone.

        Returns:
            (T_i, V) float32 natural-log probabilities of each image, and the milliseconds it took.
        """
        begun = time.perf_counter()
        log_probs = self.line_model.log_probs([image.pixels for image in images])
        return log_probs, (time.perf_counter() - begun) * 1000

    def transcribe(
        self,
        images: Sequence[LineImage],
        log_probs: Sequence[NDArray[np.float32]],
        infer_ms: float,
        options: Sequence[RecognitionOptions],
        still_wanted: Callable[[int], bool] = _always,
        tell_sure: Callable[[Mapping[int, Transcription]], None] = _nobody,
    ) -> list[Transcription]:
        """The decoder: log-probabilities to transcriptions; and the network again where these are unsure.

        See :meth:`recognize`; ``infer_ms`` is what the network took for the log-probabilities. Before some lines are
        looked at again, ``tell_sure`` gets what the others read as, by their numbers: they need not wait for that.
        """
        begun = time.perf_counter()
        hypotheses = self._decode_all(log_probs, options)
        beam_ms = (time.perf_counter() - begun) * 1000
        timings = Timings(infer_ms=infer_ms, beam_ms=beam_ms, batch_size=len(images))
        unsure = [
            index
            for index, wanted in enumerate(options)
            if any(kind.is_poor(hypotheses[index][0]) for kind in _MORE_LOOKS)
            and self._may_look_again(wanted)
        ]
        results = {
            index: self._transcription(images[index], hypotheses[index], wanted, replace(timings))
            for index, wanted in enumerate(options)
            if index not in unsure
        }
        if unsure:
            if results:
                tell_sure(results.copy())  # others are added here meanwhile
            seen = list(images)
            for kind in _MORE_LOOKS:
                poor = [index for index in unsure if kind.is_poor(hypotheses[index][0])]
                more_infer_ms, more_beam_ms = self._look_again(
                    kind, poor, seen, hypotheses, options, still_wanted
                )
                timings.infer_ms += more_infer_ms
                timings.beam_ms += more_beam_ms
            for index in unsure:
                results[index] = self._transcription(
                    seen[index], hypotheses[index], options[index], replace(timings), second_look=True
                )
        return [results[index] for index in range(len(images))]

    def _may_look_again(self, options: RecognitionOptions) -> bool:
        if not self._second_look or options.greedy or options.temperature is not None:
            return False  # a caller's own temperature makes confidences of another kind
        settings = self._beam_options(options) or self.defaults
        words = self.bundle.word_model_path is not None and settings.word_weight > 0
        characters = self.bundle.character_model_path is not None and settings.character_weight > 0
        return words or characters

    def _look_again(
        self,
        kind: _MoreLooks,
        poor: Sequence[int],
        images: list[LineImage],
        hypotheses: list[list[Hypothesis]],
        options: Sequence[RecognitionOptions],
        still_wanted: Callable[[int], bool],
    ) -> tuple[float, float]:
        """Puts better readings, and the images that they were read from, in the place of poor ones.

        Returns:
            The milliseconds that network and decoder took.
        """
        infer_ms = beam_ms = 0.0
        # One look of every line at a time: they are about as wide as before, and no more than the batch had.
        for changed in zip(*(kind.looks_at(images[index], self.bundle.line) for index in poor), strict=True):
            looks = {index: look for index, look in zip(poor, changed, strict=True) if still_wanted(index)}
            log_probs, look_ms = self.infer(list(looks.values()))
            infer_ms += look_ms
            begun = time.perf_counter()
            found = self._decode_all(log_probs, [options[index] for index in looks])
            beam_ms += (time.perf_counter() - begun) * 1000
            for (index, look), readings in zip(looks.items(), found, strict=True):
                if readings[0].score > hypotheses[index][0].score + kind.gain:
                    images[index], hypotheses[index] = look, readings
        return infer_ms, beam_ms

    def _decode_all(
        self, log_probs: Sequence[NDArray[np.float32]], options: Sequence[RecognitionOptions]
    ) -> list[list[Hypothesis]]:
        """Each line with its own options; lines with the same ones together."""
        hypotheses: list[list[Hypothesis]] = [[] for _ in log_probs]
        groups: dict[RecognitionOptions, list[int]] = {}
        for index, item in enumerate(options):
            groups.setdefault(item, []).append(index)
        for wanted, members in groups.items():
            found = self._decode([log_probs[index] for index in members], wanted)
            for index, readings in zip(members, found, strict=True):
                hypotheses[index] = readings
        return hypotheses

    def _decode(
        self, log_probs: Sequence[NDArray[np.float32]], options: RecognitionOptions
    ) -> list[list[Hypothesis]]:
        settings = self._beam_options(options)
        if options.greedy:
            return [[found] for found in self._decoder.decode_greedy_batch(log_probs, settings)]
        return self._decoder.decode_batch(log_probs, settings)

    def _beam_options(self, options: RecognitionOptions) -> BeamSearchOptions | None:
        """The model's tuned settings with a request's wishes over them; None for the decoder's own."""
        changes: dict[str, Any] = options.beam_settings()
        defaults = self._greedy_defaults if options.greedy else self.defaults
        return replace(defaults, **changes) if changes or options.greedy else None

    def _transcription(
        self,
        image: LineImage,
        hypotheses: Sequence[Hypothesis],
        options: RecognitionOptions,
        timings: Timings,
        *,
        second_look: bool = False,
    ) -> Transcription:
        hypotheses = _trimmed(hypotheses)
        best = hypotheses[0]
        words: tuple[Span, ...] = ()
        characters: tuple[Span, ...] = ()
        if options.include_words or options.include_characters:
            characters = self._place_characters(image, best)
        if options.include_words:
            words = _place_words(best, characters)
        return Transcription(
            text=best.text,
            confidence=best.confidence,
            alternatives=tuple(_alternative(reading) for reading in hypotheses),
            words=words,
            characters=characters if options.include_characters else (),
            image_width=image.source_width,
            image_height=image.source_height,
            timings=timings,
            second_look=second_look,
            rotation=image.rotation,
        )

    def _place_characters(self, image: LineImage, hypothesis: Hypothesis) -> tuple[Span, ...]:
        """The x range of each character.

        CTC marks a character somewhere within its ink, mostly on a single frame, so the border between two
        characters is taken to lie halfway between their marks.
        """
        stride = self.bundle.line.frame_stride
        spans = hypothesis.characters
        if not spans:
            return ()
        marks = [(span.first_frame + span.last_frame + 1) / 2 * stride for span in spans]
        width = image.pixels.shape[1]
        # The outer characters reach as far beyond their marks as characters of this line do on average.
        half = (
            (marks[-1] - marks[0]) / (2 * (len(marks) - 1)) if len(marks) > 1 else image.pixels.shape[0] / 3
        )
        borders = [max(marks[0] - half, 0.0)]
        borders += [(left + right) / 2 for left, right in itertools.pairwise(marks)]
        borders.append(min(marks[-1] + half, float(width)))
        edges = [image.to_source_x(border) for border in borders]
        return tuple(
            Span(span.text, span.confidence, left, right)
            for span, left, right in zip(spans, edges, edges[1:], strict=False)
        )


def blank_transcription(image: LineImage) -> Transcription:
    """What a line without ink reads as: nothing, surely."""
    return Transcription(
        text="",
        confidence=1.0,
        alternatives=(Alternative("", 0.0, 0.0, 0.0, 1.0),),
        words=(),
        characters=(),
        image_width=image.source_width,
        image_height=image.source_height,
        timings=Timings(),
        rotation=image.rotation,
    )


def _language_model(path: Path | None) -> NgramLanguageModel | None:
    # Not mapped: somebody may write a new model over the one that is served, and a mapped file that shrinks kills.
    return None if path is None else NgramLanguageModel(path, mapped=False)


def _trimmed(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Readings without space at either end (a network sees one in a margin now and then), each text once.

    Where several become one, it is as sure as they are together.
    """
    sure: dict[str, float] = {}
    for hypothesis in hypotheses:
        text = hypothesis.text.strip(" ")
        sure[text] = sure.get(text, 0.0) + hypothesis.confidence
    kept: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        text = hypothesis.text.strip(" ")
        if text not in kept:
            start = len(hypothesis.text) - len(hypothesis.text.lstrip(" "))
            kept[text] = Hypothesis(
                text=text,
                score=hypothesis.score,
                acoustic_score=hypothesis.acoustic_score,
                word_model_score=hypothesis.word_model_score,
                character_model_score=hypothesis.character_model_score,
                confidence=min(sure[text], 1.0),
                characters=hypothesis.characters[start : start + len(text)],
                words=hypothesis.words,
            )
    return list(kept.values())


def _alternative(hypothesis: Hypothesis) -> Alternative:
    return Alternative(
        text=hypothesis.text,
        total_score=hypothesis.score,
        acoustic_score=hypothesis.acoustic_score,
        language_model_score=hypothesis.score - hypothesis.acoustic_score,
        confidence=hypothesis.confidence,
    )


def _place_words(hypothesis: Hypothesis, characters: Sequence[Span]) -> tuple[Span, ...]:
    """The x range of each word: from its first character's left edge to its last one's right edge."""
    words: list[Span] = []
    place = 0
    for word in hypothesis.words:
        while characters[place].text == " ":
            place += 1
        last = place + len(word.text) - 1
        words.append(Span(word.text, word.confidence, characters[place].x_start, characters[last].x_end))
        place = last + 1
    return tuple(words)
