"""Which model an answer names, and what is counted of it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from longhand_server.calls import Call
from longhand_server.errors import (
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    LonghandError,
    ShuttingDownError,
)
from longhand_server.metrics import Metrics
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Timings, Transcription
from longhand_server.statistics import ModelStatistics
from longhand_server.tracing import CallSpan
from longhand_server.work import Work


class Model:
    """A model whose pipeline is the model itself."""

    def __init__(self, version: str) -> None:
        self.name, self.version = "toy", version
        self.bundle: Any = type("Bundle", (), {"alphabet": frozenset("abc")})
        self.statistics = ModelStatistics()
        self.gate = asyncio.Event()
        self.closing = False

    async def pipeline(self) -> Model:
        return self

    async def recognize(self, image: bytes, *_: object, **__: object) -> Transcription:
        if self.closing:
            raise ShuttingDownError("closing")
        await self.gate.wait()
        if image == b"bad":
            raise InvalidImageError("bad")
        if image == b"late":
            raise DeadlineExceededError("late")
        return Transcription(self.version, 1.0, (), (), (), 9, 9, Timings(), second_look=image == b"unsure")


async def test_an_image_that_the_old_model_reads_names_the_old_one() -> None:
    old, new = Model("1"), Model("2")
    served = [old]
    registry: Any = type("Registry", (), {"find": lambda *_: served[0]})()
    call = Call("id", "me", None, 0.0, asyncio.Event())
    work = Work(RecognitionOptions(), 0, ("", ""), registry, call, Metrics())
    first = asyncio.create_task(work.read(b"1", "image"))
    await asyncio.sleep(0)
    served[0], old.closing = new, True
    second = asyncio.create_task(work.read(b"2", "image"))
    await asyncio.sleep(0)
    old.gate.set()
    new.gate.set()
    readings = await asyncio.gather(first, second)
    assert [(reading.result.text, reading.model.version) for reading in readings] == [("1", "1"), ("2", "2")]


async def test_lines_that_were_read_twice_are_counted() -> None:
    model, metrics = Model("1"), Metrics()
    model.gate.set()
    registry: Any = type("Registry", (), {"find": lambda *_: model})()
    call = Call("id", "me", None, 0.0, asyncio.Event())
    traced: list[Transcription] = []
    call.span = cast(CallSpan, type("Span", (), {"line": lambda _, result: traced.append(result)})())
    work = Work(RecognitionOptions(), 0, ("", ""), registry, call, metrics)
    for image in (b"sure", b"unsure", b"unsure"):
        await work.read(image, "image")
    assert metrics.registry.get_sample_value("longhand_second_looks_total", {"model": "toy"}) == 2
    assert [result.second_look for result in traced] == [False, True, True]


def work_on(*models: Model, characters: str = "", metrics: Metrics | None = None) -> Work:
    """With models of which each takes the place of the one before it once it is asked for again."""
    served = list(models)
    registry: Any = type(
        "Registry", (), {"find": lambda *_: served.pop(0) if len(served) > 1 else served[0]}
    )()
    call = Call("id", "me", None, 0.0, asyncio.Event())
    options = RecognitionOptions(allowed_characters=characters)
    return Work(options, 0, ("", ""), registry, call, metrics or Metrics())


async def test_images_that_fail_are_counted_and_bad_ones_named() -> None:
    model, metrics = Model("1"), Metrics()
    model.gate.set()
    work = work_on(model, metrics=metrics)
    for image, field, reason in ((b"bad", "image", "INVALID_IMAGE"), (b"late", None, "DEADLINE_EXCEEDED")):
        with pytest.raises(LonghandError) as caught:
            await work.read(image, "image")
        assert caught.value.field == field
        labels = {"model": "toy", "reason": reason}
        assert metrics.registry.get_sample_value("longhand_lines_total", labels) == 1


async def test_a_model_without_a_successor_says_that_it_closes() -> None:
    model = Model("1")
    model.closing = True
    with pytest.raises(ShuttingDownError):
        await work_on(model).read(b"1", "image")


async def test_a_successor_must_know_the_characters_too() -> None:
    old, new = Model("1"), Model("2")
    old.closing = True
    new.bundle.alphabet = frozenset("ab")
    with pytest.raises(InvalidRequestError, match="cannot write c"):
        await work_on(old, new, characters="abc").read(b"1", "image")
    with pytest.raises(InvalidRequestError, match="cannot write d"):
        work_on(new, characters="d")
