"""How to read: the options of a request as one frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from longhand.v1 import recognition_pb2 as pb
from longhand_client.errors import InvalidRequestError

_Value = TypeVar("_Value")
_KINDS = {"greedy": pb.DECODER_KIND_GREEDY, "beam": pb.DECODER_KIND_BEAM}
_PRIORITIES = {"low": pb.PRIORITY_LOW, "normal": pb.PRIORITY_NORMAL, "high": pb.PRIORITY_HIGH}
_DECODER_FIELDS = (
    "beam_width",
    "word_weight",
    "word_bonus",
    "character_weight",
    "character_bonus",
    "unknown_word_penalty",
    "temperature",
)


@dataclass(frozen=True, kw_only=True)
class RecognitionOptions:
    """How to read. None (or an empty value) means the model's own tuned setting.

    Attributes:
        model: name of the model; "" = the server's default.
        model_version: its version; "" = the newest.
        decoder: "greedy" (the best label of each frame) or "beam" (prefix beam search with language models).
        beam_width: hypotheses kept after each frame.
        word_weight: factor of the word model's natural log-probability; 0 switches it off.
        word_bonus: added for each finished word, natural log units.
        character_weight: factor of the character model's natural log-probability; 0 switches it off.
        character_bonus: added for each character, natural log units.
        unknown_word_penalty: subtracted for each word that the word model does not know, natural log units.
        temperature: divisor of the network's log-probabilities; above 1 trusts it less.
        hotwords: words that are likelier here than in general, each with its boost in natural log units
            (None = the server's usual boost).
        alternatives: how many readings to give, counted with the best one.
        words: whether to give each word with its place and confidence.
        characters: whether to give each character with its place and confidence.
        allowed_characters: the only characters that may be read; "" = the whole alphabet.
        priority: who goes first when images wait.
    """

    model: str = ""
    model_version: str = ""
    decoder: Literal["greedy", "beam"] | None = None
    beam_width: int | None = None
    word_weight: float | None = None
    word_bonus: float | None = None
    character_weight: float | None = None
    character_bonus: float | None = None
    unknown_word_penalty: float | None = None
    temperature: float | None = None
    hotwords: Mapping[str, float | None] = field(default_factory=dict)
    alternatives: int = 1
    words: bool = False
    characters: bool = False
    allowed_characters: str = ""
    priority: Literal["low", "normal", "high"] | None = None


def options_to_proto(options: RecognitionOptions | None) -> pb.RecognitionOptions | None:
    """Converts to the message of the protocol; the server checks the ranges.

    Raises:
        InvalidRequestError: a value does not fit the message at all.
    """
    if options is None:
        return None
    message = pb.RecognitionOptions()
    try:
        if not isinstance(options, RecognitionOptions):
            raise TypeError(f"got {type(options).__name__}, need RecognitionOptions(...)")
        _fill(message, options)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidRequestError(f"options: {error}", code="INVALID_ARGUMENT", field="options") from error
    return message


def _fill(message: pb.RecognitionOptions, options: RecognitionOptions) -> None:
    message.model = options.model
    message.model_version = options.model_version
    message.alternatives = options.alternatives
    message.include_words = options.words
    message.include_characters = options.characters
    message.allowed_characters = options.allowed_characters
    if options.priority is not None:
        message.priority = _one_of("priority", options.priority, _PRIORITIES)
    if options.decoder is not None:
        message.decoder.kind = _one_of("decoder", options.decoder, _KINDS)
    for name in _DECODER_FIELDS:
        value = getattr(options, name)
        if value is not None:
            setattr(message.decoder, name, value)
    hotwords: object = options.hotwords
    if not isinstance(hotwords, Mapping):
        kind = type(hotwords).__name__
        raise TypeError(
            f"hotwords: got {kind}, need a mapping from words to boosts, such as {{'Anna': None}}"
        )
    for text, boost in options.hotwords.items():
        message.hotwords.add(text=text, boost=boost)


def _one_of(name: str, value: str, known: Mapping[str, _Value]) -> _Value:
    if value not in known:
        raise ValueError(f"{name}: got {value!r}, need one of {', '.join(known)}")
    return known[value]
