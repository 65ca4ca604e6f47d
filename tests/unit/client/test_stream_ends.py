"""Streams that are left before their end, and calls that are cancelled, leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers.stream_reading import endless_after, lines
from longhand_client import AsyncRecognizerClient, RecognizerClient

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer

pytestmark = pytest.mark.usefixtures("knows_groups")


def test_no_threads_stay_behind(fake: FakeServer) -> None:
    with RecognizerClient(fake.address) as client:
        for _ in range(3):
            stream = client.recognize_stream(endless_after(iter(())), look_ahead=3)
            next(stream)
            stream.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any("longhand-stream" in t.name for t in threading.enumerate()):
        time.sleep(0.02)
    assert not [thread.name for thread in threading.enumerate() if "longhand-stream" in thread.name]


async def test_no_tasks_stay_behind(fake: FakeServer) -> None:
    async with AsyncRecognizerClient(fake.address) as client:
        assert await client.models()
        before = asyncio.all_tasks()
        stream = client.recognize_stream(endless_after(iter(())), look_ahead=3)
        await anext(stream)
        await stream.aclose()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and asyncio.all_tasks() - before:
            await asyncio.sleep(0.02)
        assert not asyncio.all_tasks() - before
        assert not client._streams


async def test_a_call_that_is_cancelled_is_not_said_to_be_closed(fake: FakeServer) -> None:
    async with AsyncRecognizerClient(fake.address) as client:
        task = asyncio.create_task(client.recognize(b"slow"))
        while not fake.servicer.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_leaving_a_stream_does_not_wait_for_what_the_server_is_at(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, at_once = threading.Event(), fake.servicer.answer

    def answer(image: bytes) -> Any:
        if image == b"text:1":
            release.wait(30)
        return at_once(image)

    monkeypatch.setattr(fake.servicer, "answer", answer)
    with RecognizerClient(fake.address) as client:
        stream = client.recognize_stream(lines(2))
        next(stream)
        stream.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any("longhand-stream" in t.name for t in threading.enumerate()):
            time.sleep(0.02)
        left = [thread.name for thread in threading.enumerate() if "longhand-stream" in thread.name]
    release.set()
    assert not left
