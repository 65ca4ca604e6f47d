"""Parameters of an Open Inference Protocol request: how to read its images, and when."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from longhand.oip import inference_pb2 as oip
from longhand_server.errors import InvalidRequestError, ModelNotFoundError
from longhand_server.oip_tensors import shown, wrong
from longhand_server.options import DEFAULT_HOTWORD_BOOST, RecognitionOptions

PRIORITY_LEVELS = 3
DEFAULT_PRIORITY = 2
# Triton's names for what means nothing to a model that keeps no state and gives one answer to each request.
_IGNORED = {"sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response"}
# As many hotwords as are taken, each as long as it may be, fit in easily.
_MAX_HOTWORDS_TEXT = 1 << 20
_NO_WISHES = RecognitionOptions()


@dataclass(frozen=True)
class Wishes:
    """What a request's parameters say.

    Attributes:
        options: How to read its images.
        priority: Larger goes first.
        timeout_s: Seconds in which it must be served; 0 = any.
    """

    options: RecognitionOptions = _NO_WISHES
    priority: int = 0
    timeout_s: float = 0.0


def read_parameters(parameters: Mapping[str, oip.InferParameter]) -> Wishes:
    """What a request wishes.

    Raises:
        InvalidRequestError: An unknown parameter, one of a wrong type, or one out of range.
    """
    if not parameters:
        return Wishes()
    settings: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in _READERS:
            settings[name] = _READERS[name](parameter, f"parameters[{name}]")
        elif name not in _IGNORED:
            raise InvalidRequestError(
                f"parameters: there is no parameter {shown(name)}; there is: {', '.join(_READERS)}",
                field="parameters",
            )
    priority = settings.pop("priority", 0) or DEFAULT_PRIORITY
    if not 1 <= priority <= PRIORITY_LEVELS:
        raise wrong(
            "parameters[priority]", str(priority), f"1 (first) to {PRIORITY_LEVELS}, or 0 (the default)"
        )
    timeout_us = settings.pop("timeout", 0)
    if timeout_us < 0:
        raise wrong("parameters[timeout]", str(timeout_us), "microseconds, at least 0 (0 = no limit)")
    # 0 is the default here as in our own service.
    settings["alternatives"] = settings.get("alternatives") or 1
    settings["greedy"] = settings.pop("decoder", False)
    return Wishes(RecognitionOptions(**settings), DEFAULT_PRIORITY - priority, timeout_us / 1e6)


@contextlib.contextmanager
def named_as_here() -> Iterator[None]:
    """Errors about options and models name the fields of this protocol's requests."""
    try:
        yield
    except ModelNotFoundError as error:
        error.field = "model_version" if error.field == "options.model_version" else "model_name"
        raise
    except InvalidRequestError as error:
        old = error.field or ""
        if old.startswith("options."):
            name, dot, rest = old.removeprefix("options.").removeprefix("decoder.").partition(".")
            word, bracket, index = name.partition("[")
            error.field = f"parameters[{word}]{bracket}{index}{dot}{rest}"
            error.message = error.message.replace(old, error.field, 1)
        raise


def _read_text(parameter: oip.InferParameter, field: str) -> str:
    return str(_value(parameter, field, ("string_param",), "text"))


def _read_switch(parameter: oip.InferParameter, field: str) -> bool:
    return bool(_value(parameter, field, ("bool_param",), "a boolean"))


def _read_integer(parameter: oip.InferParameter, field: str) -> int:
    return int(_value(parameter, field, ("int64_param", "uint64_param"), "an integer"))


def _read_number(parameter: oip.InferParameter, field: str) -> float:
    return float(_value(parameter, field, ("double_param", "int64_param", "uint64_param"), "a number"))


def _read_decoder(parameter: oip.InferParameter, field: str) -> bool:
    kind = _read_text(parameter, field)
    if kind not in ("beam", "greedy"):
        raise wrong(field, shown(kind), "'beam' or 'greedy'")
    return kind == "greedy"


def _read_hotwords(parameter: oip.InferParameter, field: str) -> tuple[tuple[str, float], ...]:
    text = _read_text(parameter, field)
    if len(text) > _MAX_HOTWORDS_TEXT:
        raise wrong(field, f"{len(text)} characters", f"at most {_MAX_HOTWORDS_TEXT}")
    needed = 'JSON, such as ["Anna", "Bern"] or {"Anna": 3.5}'
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise wrong(field, shown(text), needed) from None
    boosts = dict.fromkeys(value, DEFAULT_HOTWORD_BOOST) if _is_words(value) else value
    if not isinstance(boosts, dict) or not all(
        isinstance(boost, int | float) and not isinstance(boost, bool) for boost in boosts.values()
    ):
        raise wrong(field, shown(text), needed)
    if any("\ud800" <= character <= "\udfff" for word in boosts for character in word):
        raise wrong(field, shown(text), "words of characters, not halves of surrogate pairs")
    try:
        return tuple((word, float(boost)) for word, boost in boosts.items())
    except OverflowError:
        raise wrong(field, shown(text), "boosts from 0 to 20") from None


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _value(parameter: oip.InferParameter, field: str, kinds: tuple[str, ...], needed: str) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise wrong(field, kind or "no value", f"{needed} ({' or '.join(kinds)})")
    return getattr(parameter, kind)


_READERS: dict[str, Callable[[oip.InferParameter, str], Any]] = {
    "decoder": _read_decoder,
    "beam_width": _read_integer,
    "word_weight": _read_number,
    "word_bonus": _read_number,
    "character_weight": _read_number,
    "character_bonus": _read_number,
    "unknown_word_penalty": _read_number,
    "temperature": _read_number,
    "hotwords": _read_hotwords,
    "alternatives": _read_integer,
    "allowed_characters": _read_text,
    "include_words": _read_switch,
    "include_characters": _read_switch,
    "priority": _read_integer,
    "timeout": _read_integer,
}
