"""Between protobuf messages and the domain's own types; nothing is decided here."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from longhand.v1 import recognition_pb2 as pb
from longhand_server.errors import InvalidRequestError, LonghandError
from longhand_server.options import DEFAULT_HOTWORD_BOOST, RecognitionOptions, check_hotword_count
from longhand_server.recognizer import Span
from longhand_server.registry import Reading, ServedModel

_DecoderField: TypeAlias = Literal[
    "beam_width",
    "word_weight",
    "word_bonus",
    "character_weight",
    "character_bonus",
    "unknown_word_penalty",
    "temperature",
]
ERROR_DOMAIN = "longhand"
_DECODER_FIELDS: tuple[_DecoderField, ...] = get_args(_DecoderField)
_PRIORITIES: dict[int, int] = {
    pb.PRIORITY_UNSPECIFIED: 0,
    pb.PRIORITY_LOW: -1,
    pb.PRIORITY_NORMAL: 0,
    pb.PRIORITY_HIGH: 1,
}
_NO_WISHES = RecognitionOptions()
_DECODERS: dict[int, bool] = {
    pb.DECODER_KIND_UNSPECIFIED: False,
    pb.DECODER_KIND_BEAM: False,
    pb.DECODER_KIND_GREEDY: True,
}


def read_options(message: pb.RecognitionOptions) -> RecognitionOptions:
    """The options of a request.

    Raises:
        InvalidRequestError: A value is unknown or out of range.
    """
    check_hotword_count(len(message.hotwords))  # before they are looked at one by one
    if not message.ByteSize():
        return _NO_WISHES
    decoder = message.decoder
    if decoder.kind not in _DECODERS:
        raise _unknown("options.decoder.kind", decoder.kind)
    settings = {name: getattr(decoder, name) for name in _DECODER_FIELDS if decoder.HasField(name)}
    return RecognitionOptions(
        greedy=_DECODERS[decoder.kind],
        hotwords=tuple(
            (word.text, word.boost if word.HasField("boost") else DEFAULT_HOTWORD_BOOST)
            for word in message.hotwords
        ),
        alternatives=message.alternatives or 1,
        allowed_characters=message.allowed_characters,
        include_words=message.include_words,
        include_characters=message.include_characters,
        **settings,
    )


def read_priority(message: pb.RecognitionOptions) -> int:
    """The priority of a request as a number, larger first.

    Raises:
        InvalidRequestError: No such priority.
    """
    if message.priority not in _PRIORITIES:
        raise _unknown("options.priority", message.priority)
    return _PRIORITIES[message.priority]


def write_result(reading: Reading, message: pb.RecognitionResult) -> None:
    """Fills a message with what was read."""
    result, model = reading
    message.text = result.text
    message.confidence = result.confidence
    message.model = model.name
    message.model_version = model.version
    message.image_width_px = result.image_width
    message.image_height_px = result.image_height
    message.rotation_degrees = result.rotation
    for other in result.alternatives:
        message.alternatives.add(
            text=other.text,
            total_log_probability=other.total_score,
            acoustic_log_probability=other.acoustic_score,
            language_model_log_probability=other.language_model_score,
            confidence=other.confidence,
        )
    for span in result.words:
        _place(message.words.add(), span)
    for span in result.characters:
        _place(message.characters.add(), span)
    timings = message.timings
    timings.decode_image_ms = result.timings.decode_image_ms
    timings.queue_ms = result.timings.queue_ms
    timings.infer_ms = result.timings.infer_ms
    timings.beam_ms = result.timings.beam_ms
    timings.total_ms = result.timings.total_ms
    timings.batch_size = result.timings.batch_size


def write_model(model: ServedModel, *, is_default: bool) -> pb.Model:
    """The description of a model."""
    bundle = model.bundle
    message = pb.Model(
        name=model.name,
        version=model.version,
        description=bundle.description,
        alphabet="".join(bundle.alphabet.characters),
        is_default=is_default,
        state=pb.MODEL_STATE_FAILED if model.failed else pb.MODEL_STATE_UNLOADED,
        has_word_model=bundle.word_model_path is not None,
        has_character_model=bundle.character_model_path is not None,
        line_height_px=bundle.line.height,
    )
    if model.loading:
        message.state = pb.MODEL_STATE_LOADING
    loaded = model.loaded
    if loaded is not None:
        message.state = pb.MODEL_STATE_READY
        message.device = loaded.device
        message.loaded_at.FromMilliseconds(int(loaded.at * 1000))
        settings = {name: getattr(loaded.defaults, name) for name in _DECODER_FIELDS}
        message.default_options.CopyFrom(pb.DecoderOptions(kind=pb.DECODER_KIND_BEAM, **settings))
    return message


def write_status(error: LonghandError) -> status_pb2.Status:
    """The google.rpc.Status of an error, with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata)
    ]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=StatusCode[error.code].value[0], message=error.message, details=packed)


def _place(message: pb.Word | pb.Character, span: Span) -> None:
    message.text = span.text
    message.confidence = span.confidence
    message.x_start_px = span.x_start
    message.x_end_px = span.x_end


def _unknown(field: str, number: int) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: there is no value {number}", field=field)
