"""How to read: the options of a request as one frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from longhand.v1 import recognition_pb2 as pb
from longhand_client.errors import InvalidRequestError
from longhand_client.results import Model

_CHOICES: dict[str, dict[str, int]] = {
    "decoder": {"greedy": pb.DECODER_KIND_GREEDY, "beam": pb.DECODER_KIND_BEAM},
    "priority": {"low": pb.PRIORITY_LOW, "normal": pb.PRIORITY_NORMAL, "high": pb.PRIORITY_HIGH},
}
# Those that have other names in the message.
_NAMES = {"words": "include_words", "characters": "include_characters", "decoder": "kind"}
_DECODER_FIELDS = frozenset(pb.DecoderOptions.DESCRIPTOR.fields_by_name)


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
        priority: who goes first when images wait; "high" counts as "normal" where the server's tokens say so.
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
    hotwords: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    alternatives: int = 1
    words: bool = False
    characters: bool = False
    allowed_characters: str = ""
    priority: Literal["low", "normal", "high"] | None = None


def with_language_weight(options: RecognitionOptions, model: Model, factor: float) -> RecognitionOptions:
    """The same options with the model's own weights of its language models, multiplied by a factor."""
    tuned = model.default_options
    return replace(
        options,
        word_weight=factor * float(tuned.get("word_weight", 0.0)),
        character_weight=factor * float(tuned.get("character_weight", 0.0)),
    )


def options_to_proto(options: RecognitionOptions | None) -> pb.RecognitionOptions | None:
    """Converts to the message of the protocol; the server checks the ranges.

    Raises:
        InvalidRequestError: a value does not fit the message at all.
    """
    if options is None:
        return None
    if not isinstance(options, RecognitionOptions):
        raise _misfit(f"got {type(options).__name__}, need RecognitionOptions(...)")
    message = pb.RecognitionOptions()
    for option in fields(RecognitionOptions):
        value = getattr(options, option.name)
        try:
            if value is not None:
                _set(message, option.name, value)
        except (TypeError, ValueError, AttributeError) as error:
            raise _misfit(f"{option.name}: {error}") from error
    return message


def _misfit(problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"options: {problem}", code="INVALID_ARGUMENT", field="options")


def _set(message: pb.RecognitionOptions, name: str, value: Any) -> None:
    if name == "hotwords":
        if not isinstance(value, Mapping):
            kind = type(value).__name__
            raise TypeError(f"got {kind}, need a mapping from words to boosts, such as {{'Anna': None}}")
        for text, boost in value.items():
            message.hotwords.add(text=text, boost=boost)
        return
    if name in _CHOICES:
        known = _CHOICES[name]
        if value not in known:
            raise ValueError(f"got {value!r}, need one of {', '.join(known)}")
        value = known[value]
    field_name = _NAMES.get(name, name)
    setattr(message.decoder if field_name in _DECODER_FIELDS else message, field_name, value)
