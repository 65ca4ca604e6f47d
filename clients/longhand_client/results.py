"""What the server read, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longhand.v1 import recognition_pb2 as pb
from longhand_client.errors import LonghandError, ServerError, from_status
from longhand_client.images import ImageSource


@dataclass(frozen=True, slots=True)
class Span:
    """One word or one character of the text.

    Attributes:
        text: the word or the character.
        confidence: how sure the model is of it, 0 to 1.
        x_start: left edge, in pixels of the image as it was read.
        x_end: right edge, in pixels of the image as it was read.
    """

    text: str
    confidence: float
    x_start: float
    x_end: float


@dataclass(frozen=True, slots=True)
class Alternative:
    """One reading of the line.

    Attributes:
        text: the reading.
        confidence: how sure the model is of it, 0 to 1.
        total_log_probability: the score that ranks the readings (natural log; bonuses may lift it above 0).
        acoustic_log_probability: the network's part of it.
        language_model_log_probability: the language models' weighted part of it.
    """

    text: str
    confidence: float
    total_log_probability: float
    acoustic_log_probability: float
    language_model_log_probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the server's time went, in milliseconds; images of one batch share the batch's times.

    Attributes:
        decode_image_ms: decoding the file and normalising the line.
        queue_ms: waiting for a batch to start.
        infer_ms: the network.
        beam_ms: the CTC decoder.
        total_ms: from the request's arrival to its answer.
        batch_size: images in the batch.
    """

    decode_image_ms: float
    queue_ms: float
    infer_ms: float
    beam_ms: float
    total_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was read from one image.

    Attributes:
        text: the best reading; "" for a blank line.
        confidence: how sure the model is of the whole text, 0 to 1.
        alternatives: the readings asked for, best first.
        words: the words of `text` from left to right, where they were asked for.
        characters: the characters of `text` from left to right, where they were asked for.
        timings: where the server's time went.
        model: name of the model.
        model_version: its version.
        image_width: width in pixels of the image as it was read.
        image_height: height in pixels of the image as it was read.
        rotation: degrees, clockwise, by which the sent image was turned to be read: 0, 90, 180 or 270. Sizes and
            places are those of the turned image; :meth:`box` tells where a place lies in the sent one.
    """

    text: str
    confidence: float
    alternatives: tuple[Alternative, ...]
    words: tuple[Span, ...]
    characters: tuple[Span, ...]
    timings: Timings
    model: str
    model_version: str
    image_width: int
    image_height: int
    rotation: int = 0

    @property
    def sent_size(self) -> tuple[int, int]:
        """Width and height in pixels of the sent image, after EXIF rotation."""
        size = self.image_width, self.image_height
        return size[::-1] if self.rotation in (90, 270) else size

    def box(self, span: Span) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of a word or character in px of the sent image, after EXIF rotation."""
        start, end, width, height = span.x_start, span.x_end, self.image_width, self.image_height
        return {
            0: (start, 0.0, end, float(height)),
            90: (0.0, width - end, float(height), width - start),
            180: (width - end, 0.0, width - start, float(height)),
            270: (0.0, start, float(height), end),
        }[self.rotation]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, ready for `json.dumps`."""
        return dataclasses.asdict(self, dict_factory=_plain)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image of a batch or a stream.

    Attributes:
        index: position of the image among those handed in, from 0.
        transcription: what was read; None where it failed.
        error: why it failed; None where it was read.
        source: the image as it was handed in, such as its path.
    """

    index: int
    transcription: Transcription | None
    error: LonghandError | None
    source: ImageSource

    def result(self) -> Transcription:
        """The transcription.

        Raises:
            LonghandError: this image's own error.
        """
        if self.transcription is None:
            raise self.error or ServerError(f"no answer for image {self.index}")
        return self.transcription


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the server serves.

    Attributes:
        name: such as "en".
        version: such as "1.0.0".
        description: one line for people.
        alphabet: every character that it can write.
        is_default: whether requests that name no model get it.
        state: "ready", "loading", "unloaded", "draining", "failed" or "unspecified".
        device: such as "cpu" or "cuda:0".
        has_word_model: whether it has a word language model.
        has_character_model: whether it has a character language model.
        default_options: the decoder's tuned settings by name.
    """

    name: str
    version: str
    description: str
    alphabet: str
    is_default: bool
    state: str
    device: str
    has_word_model: bool
    has_character_model: bool
    default_options: dict[str, str | int | float]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, ready for `json.dumps`."""
        return dataclasses.asdict(self)


def transcription_from_proto(result: pb.RecognitionResult) -> Transcription:
    """Converts the message of the protocol."""
    timings = result.timings
    return Transcription(
        text=result.text,
        confidence=result.confidence,
        alternatives=tuple(
            Alternative(
                one.text,
                one.confidence,
                one.total_log_probability,
                one.acoustic_log_probability,
                one.language_model_log_probability,
            )
            for one in result.alternatives
        ),
        words=_spans(result.words),
        characters=_spans(result.characters),
        timings=Timings(
            timings.decode_image_ms,
            timings.queue_ms,
            timings.infer_ms,
            timings.beam_ms,
            timings.total_ms,
            timings.batch_size,
        ),
        model=result.model,
        model_version=result.model_version,
        image_width=result.image_width_px,
        image_height=result.image_height_px,
        rotation=result.rotation_degrees,
    )


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields}


def _spans(messages: Sequence[pb.Word] | Sequence[pb.Character]) -> tuple[Span, ...]:
    return tuple([Span(one.text, one.confidence, one.x_start_px, one.x_end_px) for one in messages])


def outcome_from_proto(
    index: int, answer: pb.BatchRecognizeOutcome | pb.StreamingRecognizeResponse, source: ImageSource
) -> Outcome:
    """Converts one item's answer of a batch or a stream."""
    if answer.HasField("result"):
        return Outcome(index, transcription_from_proto(answer.result), None, source)
    if answer.HasField("error"):
        return Outcome(index, None, from_status(answer.error), source)
    error = ServerError(f"the server gave neither a result nor an error for image {index}")
    return Outcome(index, None, error, source)


def model_from_proto(model: pb.Model) -> Model:
    """Converts the message of the protocol."""
    options = {field.name: value for field, value in model.default_options.ListFields()}
    if "kind" in options:
        options["kind"] = pb.DecoderKind.Name(options["kind"]).removeprefix("DECODER_KIND_").lower()
    return Model(
        name=model.name,
        version=model.version,
        description=model.description,
        alphabet=model.alphabet,
        is_default=model.is_default,
        state=pb.ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower(),
        device=model.device,
        has_word_model=model.has_word_model,
        has_character_model=model.has_character_model,
        default_options=options,
    )
