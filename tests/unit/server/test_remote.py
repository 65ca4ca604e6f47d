"""The gateway's own part of reading lines elsewhere."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from helpers.toy_model import draw_image, write_bundle
from longhand_server.bundle import load_bundle
from longhand_server.config import RuntimeConfig, ServerConfig
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Timings, Transcription
from longhand_server.remote import RemotePipeline

_OPTIONS = RecognitionOptions()


class Elsewhere:
    """Reads every line as the caller's name, after it has waited for a second there."""

    def __init__(self) -> None:
        self.read_for: list[str] = []

    async def describe(self, name: str, version: str) -> Any:
        raise NotImplementedError

    async def read(self, name: str, version: str, *wishes: Any) -> Transcription:
        _, _, _, caller = wishes
        self.read_for.append(caller)
        return Transcription(caller, 1.0, (), (), (), 9, 9, Timings(queue_ms=1000.0))


def pipeline(folder: Path, reader: Elsewhere) -> RemotePipeline:
    config = ServerConfig(runtime=RuntimeConfig(threads=1))
    return RemotePipeline(load_bundle(write_bundle(folder)), config, reader, in_flight=4)


async def test_both_waits_count(tmp_path: Path) -> None:
    remote = pipeline(tmp_path, Elsewhere())
    result = await remote.recognize(draw_image("a"), _OPTIONS, caller="me")
    assert result.text == "me"
    assert result.timings.queue_ms > 1000.0
    await remote.close()


async def test_what_is_given_up_while_it_waits_for_its_thread_is_not_read_elsewhere(tmp_path: Path) -> None:
    reader = Elsewhere()
    remote = pipeline(tmp_path, reader)
    go_on = threading.Event()
    held = remote._workers.submit(go_on.wait, 10)
    calls = [
        asyncio.create_task(remote.recognize(draw_image("a"), _OPTIONS, caller=caller)) for caller in "ab"
    ]
    await asyncio.sleep(0.01)
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    go_on.set()
    assert (await calls[1]).text == "b"
    await held
    await remote.close()
    assert reader.read_for == ["b"]
