"""Streams that break are opened again, the synchronous and the asynchronous one alike; when, and when not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from helpers.stream_reading import ReadAll, lines, read_all_async, texts
from longhand.v1 import recognition_pb2 as pb
from longhand_client import AsyncRecognizerClient
from longhand_client.errors import (
    ClientClosedError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    ServerUnavailableError,
)
from longhand_client.stream import Retries, StreamSettings

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer

pytestmark = pytest.mark.usefixtures("knows_groups")


def test_a_broken_stream_goes_on_where_it_broke(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_breaks = 3
    fake.servicer.stream_break_after = 5
    outcomes = read_all(fake.address, lines(30), look_ahead=4)
    assert texts(outcomes) == [str(index) for index in range(30)]
    # What had been answered was not sent again: at most the look-ahead, for each of the three breaks.
    assert fake.servicer.stream_images <= 30 + 3 * (4 + 1)
    assert len(fake.servicer.requests) == 4


def test_a_stream_that_ends_early_goes_on_too(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_breaks = 1
    fake.servicer.stream_break_after = 2
    fake.servicer.stream_breaks_silently = True
    assert texts(read_all(fake.address, lines(12), look_ahead=4)) == [str(index) for index in range(12)]


def test_a_server_that_stays_away(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_breaks = 1000
    with pytest.raises(ServerUnavailableError, match=r"stopping|ended the stream early"):
        read_all(fake.address, lines(3))
    # The first try and three more, each answered by a break.
    assert len(fake.servicer.requests) == 4


def test_an_image_that_is_never_answered(fake: FakeServer, read_all: ReadAll) -> None:
    outcomes = read_all(fake.address, [b"text:0", b"lost", b"text:2"])
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert isinstance(outcomes[1].error, ServerError)


async def test_a_break_does_not_cut_an_asynchronous_source(fake: FakeServer) -> None:
    fake.servicer.stream_breaks = 2
    fake.servicer.stream_break_after = 1

    async def images() -> AsyncIterator[bytes]:
        for line in lines(6):
            await asyncio.sleep(0.15)  # the stream breaks while the next image is awaited
            yield line

    async with AsyncRecognizerClient(fake.address) as client:
        read = [outcome.result().text async for outcome in client.recognize_stream(images(), look_ahead=3)]
    assert read == ["0", "1", "2", "3", "4", "5"]


def test_a_full_server_is_asked_again(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_breaks = 2
    fake.servicer.stream_break_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert texts(read_all(fake.address, lines(5), look_ahead=2)) == [str(index) for index in range(5)]


@pytest.mark.parametrize("retries", [0, 3])
def test_an_error_of_the_whole_stream_keeps_its_name(fake: FakeServer, retries: int) -> None:
    """gRPC loses the status of a call that ends while much is being written; it is asked for again."""
    fake.servicer.stream_breaks = 1000
    fake.servicer.stream_break_code = grpc.StatusCode.NOT_FOUND

    async def read() -> None:
        async with AsyncRecognizerClient(fake.address, retries=retries) as client:
            async for _ in client.recognize_stream(lines(100)):
                pass

    for _ in range(15):
        with pytest.raises(ModelNotFoundError):
            asyncio.run(read())


def test_closing_the_client_while_its_stream_waits_for_a_retry(fake: FakeServer) -> None:
    fake.servicer.stream_breaks = 1000

    async def read() -> None:
        client = AsyncRecognizerClient(fake.address, retries=8)

        async def stream() -> None:
            async for _ in client.recognize_stream(lines(1)):
                pass

        task = asyncio.create_task(stream())
        while len(fake.servicer.requests) < 4:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # of the 0.8 s before the next try
        await client.close()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(task, 10)

    asyncio.run(read())


def test_a_stream_waits_for_a_server_that_restarts(fake: FakeServer, read_all: ReadAll) -> None:
    # More often than `retries`, but behind an answer.
    fake.servicer.stream_breaks, fake.servicer.stream_break_after = 1, 3
    fake.servicer.stream_refused = range(1, 4)
    assert texts(read_all(fake.address, lines(8))) == [str(number) for number in range(8)]
    assert len(fake.servicer.requests) == 5


def test_a_server_has_time_to_restart_however_long_ago_it_answered(
    fake: FakeServer, read_all: ReadAll
) -> None:
    fake.servicer.stream_breaks, fake.servicer.stream_break_after = 1, 1
    fake.servicer.stream_refused = range(1, 2)

    def slow() -> Iterator[bytes]:
        yield b"text:0"
        time.sleep(1.2)
        yield b"text:1"

    async def slow_async() -> AsyncIterator[bytes]:
        yield b"text:0"
        await asyncio.sleep(1.2)
        yield b"text:1"

    source: Any = slow_async() if read_all is read_all_async else slow()
    assert texts(read_all(fake.address, source, timeout_s=1.0, retries=1)) == ["0", "1"]


def test_any_number_of_tries() -> None:
    config = pb.StreamingRecognizeRequest()
    retries = Retries(StreamSettings(config, "host", 1, True, retries=3, max_image_bytes=1, timeout_s=1e9))
    retries.answered()
    pauses = [retries.pause_s(ServerUnavailableError("starting"), None) for _ in range(1100)]
    assert pauses[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    assert max(pauses) == 2.0


def test_a_server_that_is_full_is_left_alone_for_as_long_as_it_says() -> None:
    config = pb.StreamingRecognizeRequest()
    retries = Retries(StreamSettings(config, "host", 1, True, retries=3, max_image_bytes=1, timeout_s=5))
    assert retries.pause_s(OverloadedError("full", retry_after_s=7.5), None) == 7.5
    assert retries.pause_s(OverloadedError("full", retry_after_s=0.01), None) == pytest.approx(0.2)


def test_without_retries_a_stream_that_breaks_stays_broken() -> None:
    config = pb.StreamingRecognizeRequest()
    retries = Retries(StreamSettings(config, "host", 1, True, retries=0, max_image_bytes=1, timeout_s=5))
    retries.answered()
    with pytest.raises(ServerUnavailableError):
        retries.pause_s(ServerUnavailableError("stopping"), None)


def test_each_answer_gives_a_stream_its_tries_and_its_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    config = pb.StreamingRecognizeRequest()
    retries = Retries(StreamSettings(config, "host", 1, True, retries=3, max_image_bytes=1, timeout_s=5))
    for _ in range(10):
        retries.answered()
        now += 2
        assert retries.pause_s(ServerUnavailableError("restarting"), None) == pytest.approx(0.1)


def test_a_stream_without_images_outlives_any_number_of_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    config = pb.StreamingRecognizeRequest()
    retries = Retries(StreamSettings(config, "host", 1, True, retries=3, max_image_bytes=1, timeout_s=5))
    retries.answered()
    for _ in range(3):
        now += 60
        for _ in range(5):
            now += retries.pause_s(ServerUnavailableError("starting"), None)
    now += 4  # not long enough for a call that stood
    with pytest.raises(ServerUnavailableError):
        retries.pause_s(ServerUnavailableError("starting"), None)
