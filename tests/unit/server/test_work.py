"""Which model an answer names, and what is counted of it."""

from __future__ import annotations

import asyncio
from typing import Any

from longhand_server.calls import Call
from longhand_server.errors import ShuttingDownError
from longhand_server.metrics import Metrics
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Timings, Transcription
from longhand_server.statistics import ModelStatistics
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
    work = Work(RecognitionOptions(), 0, ("", ""), registry, call, metrics)
    for image in (b"sure", b"unsure", b"unsure"):
        await work.read(image, "image")
    assert metrics.registry.get_sample_value("longhand_second_looks_total", {"model": "toy"}) == 2
