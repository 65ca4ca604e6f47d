"""The synchronous and the asynchronous stream keep the same promises, so each test runs on both.

And each runs against a server that knows groups of images and one, older, that does not.
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from helpers.stream_reading import ReadAll, endless_after, lines, read_all_async, texts
from helpers.web_process import free_port
from longhand_client import AsyncRecognizerClient, RecognitionOptions, RecognizerClient
from longhand_client.errors import (
    ClientClosedError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer

pytestmark = pytest.mark.usefixtures("knows_groups")


def test_order_is_kept_where_answers_come_in_any_order(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_group = 7
    outcomes = read_all(fake.address, lines(40), look_ahead=16)
    assert [outcome.index for outcome in outcomes] == list(range(40))
    assert texts(outcomes) == [str(index) for index in range(40)]
    assert outcomes[5].source == b"text:5"


def test_as_they_come(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_group = 4
    outcomes = read_all(fake.address, lines(8), look_ahead=8, ordered=False)
    assert [outcome.index for outcome in outcomes] == [3, 2, 1, 0, 7, 6, 5, 4]
    assert texts(outcomes) == ["3", "2", "1", "0", "7", "6", "5", "4"]


def test_images_share_messages(fake: FakeServer, read_all: ReadAll, knows_groups: bool) -> None:
    fake.servicer.stream_group = 8
    outcomes = read_all(fake.address, lines(800), look_ahead=64)
    assert texts(outcomes) == [str(index) for index in range(800)]
    assert fake.servicer.stream_images == 800
    if knows_groups:
        # The first 64 go out before it is known, the others in groups of 16 where nothing keeps them from it.
        assert fake.servicer.stream_messages < 400
    else:
        assert fake.servicer.stream_messages == 800


def test_nothing_to_read(fake: FakeServer, read_all: ReadAll) -> None:
    assert read_all(fake.address, []) == []


def test_bad_images_do_not_touch_the_others(fake: FakeServer, read_all: ReadAll, tmp_path: Path) -> None:
    images = [b"text:0", b"bad", tmp_path / "missing.png", b"text:3"]
    outcomes = read_all(fake.address, images)
    assert [outcome.transcription is not None for outcome in outcomes] == [True, False, False, True]
    with pytest.raises(InvalidImageError, match="3 bytes"):
        outcomes[1].result()
    with pytest.raises(InvalidImageError, match=r"missing\.png"):
        outcomes[2].result()


def test_more_unreadable_files_than_slots(fake: FakeServer, read_all: ReadAll, tmp_path: Path) -> None:
    outcomes = read_all(fake.address, [tmp_path / "missing.png"] * 20, look_ahead=2)
    assert len(outcomes) == 20
    assert all(isinstance(outcome.error, InvalidImageError) for outcome in outcomes)


@pytest.mark.parametrize("ordered", [True, False])
def test_look_ahead_is_bounded(fake: FakeServer, read_all: ReadAll, ordered: bool) -> None:
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield b"text:x"

    outcomes = read_all(fake.address, endless(), look_ahead=5, ordered=ordered, take=3)
    assert len(outcomes) == 3
    # Three were handed over, five may be on their way, one more slot is freed when the stream ends.
    assert pulled <= 3 + 5 + 1


def test_options_go_first_and_once(fake: FakeServer, read_all: ReadAll) -> None:
    read_all(fake.address, lines(3), options=RecognitionOptions(decoder="greedy", alternatives=4))
    (config,) = fake.servicer.requests
    assert config.config.options.alternatives == 4


def test_a_token_goes_with_a_stream(fake: FakeServer, read_all: ReadAll) -> None:
    read_all(fake.address, lines(2), token="s3cret")
    (metadata,) = fake.servicer.metadata
    assert metadata["authorization"] == "Bearer s3cret"


def test_silence_ends_the_stream(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_group = 1000

    def slow() -> Iterator[bytes]:
        yield b"text:0"
        time.sleep(0.1)
        yield b"text:1"

    with pytest.raises(DeadlineExceededError, match=r"within 0\.5 s, images unanswered: 2"):
        read_all(fake.address, endless_after(slow()), look_ahead=2, timeout_s=0.5)


def test_the_sources_own_error_arrives(fake: FakeServer, read_all: ReadAll) -> None:
    def broken() -> Iterator[bytes]:
        yield b"text:0"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        read_all(fake.address, broken())


def test_wrong_kinds_of_things(fake: FakeServer, read_all: ReadAll) -> None:
    with pytest.raises(TypeError, match="got int"):
        read_all(fake.address, [7])
    with pytest.raises(ValueError, match="look_ahead: got 0"):
        read_all(fake.address, [], look_ahead=0)
    with pytest.raises(InvalidRequestError, match="options"):
        read_all(fake.address, [], options=RecognitionOptions(beam_width=-1))


def test_results_of_a_slow_source_come_at_once(fake: FakeServer) -> None:
    release = threading.Event()

    def waits() -> Iterator[bytes]:
        yield b"text:0"
        assert release.wait(20)
        yield b"text:1"

    with RecognizerClient(fake.address) as client:
        stream = client.recognize_stream(waits())
        assert next(stream).result().text == "0"
        release.set()
        assert [outcome.index for outcome in stream] == [1]


async def test_asynchronous_source(fake: FakeServer) -> None:
    async def images() -> AsyncIterator[bytes]:
        for line in lines(5):
            await asyncio.sleep(0.001)
            yield line

    async with AsyncRecognizerClient(fake.address) as client:
        read = [outcome.result().text async for outcome in client.recognize_stream(images())]
    assert read == ["0", "1", "2", "3", "4"]


class TrackedImage(bytearray):
    __hash__ = object.__hash__  # type: ignore[assignment]

    """Bytes that can be counted while they live."""


def tracked(count: int, alive: weakref.WeakSet[TrackedImage]) -> Iterator[TrackedImage]:
    for _ in range(count):
        image = TrackedImage(b"bad")
        alive.add(image)
        yield image


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_memory_stays_constant(fake: FakeServer, kind: str) -> None:
    alive: weakref.WeakSet[TrackedImage] = weakref.WeakSet()
    most = 0

    def count_sync() -> int:
        nonlocal most
        seen = 0
        with RecognizerClient(fake.address) as client:
            for _ in client.recognize_stream(tracked(2000, alive), look_ahead=8):
                seen, most = seen + 1, max(most, len(alive))
        return seen

    async def count_async() -> int:
        nonlocal most
        seen = 0
        async with AsyncRecognizerClient(fake.address) as client:
            async for _ in client.recognize_stream(tracked(2000, alive), look_ahead=8):
                seen, most = seen + 1, max(most, len(alive))
        return seen

    assert (count_sync() if kind == "sync" else asyncio.run(count_async())) == 2000
    # Eight on their way, and one each in the hands of the source, the sender and the caller.
    assert most <= 8 + 3


def test_a_source_that_fails_fails_after_what_came_before_it(fake: FakeServer, read_all: ReadAll) -> None:
    def failing() -> Iterator[bytes]:
        yield from lines(20)
        raise OSError("disk gone")

    seen: list[str] = []

    def read_sync() -> None:
        with RecognizerClient(fake.address) as client:
            seen.extend(
                outcome.result().text for outcome in client.recognize_stream(failing(), look_ahead=64)
            )

    async def read_async() -> None:
        async with AsyncRecognizerClient(fake.address) as client:
            async for outcome in client.recognize_stream(failing(), look_ahead=64):
                seen.append(outcome.result().text)  # noqa: PERF401 -- those before the failure count

    with pytest.raises(OSError, match="disk gone"):
        asyncio.run(read_async()) if read_all is read_all_async else read_sync()
    assert seen == [str(index) for index in range(20)]


def test_an_open_file_that_cannot_be_read_touches_no_other(
    fake: FakeServer, read_all: ReadAll, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(b"text:1")
    closed = (tmp_path / "image").open("rb")
    closed.close()
    outcomes = read_all(fake.address, [b"text:0", closed, b"text:2"])
    assert [outcome.transcription is not None for outcome in outcomes] == [True, False, True]
    with pytest.raises(InvalidImageError, match="closed file"):
        outcomes[1].result()


def test_a_slow_source_is_no_silent_server(
    fake: FakeServer, read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> Iterator[bytes]:
        yield b"text:0"
        time.sleep(0.8)
        yield b"text:1"

    async def slow_async() -> AsyncIterator[bytes]:
        yield b"text:0"
        await asyncio.sleep(0.8)
        yield b"text:1"

    at_once = fake.servicer.answer

    def answer(image: bytes) -> Any:
        # The time that starts with the first answer ends while the second image waits, which has a time of its own.
        time.sleep(0.5 if image == b"text:1" else 0)
        return at_once(image)

    monkeypatch.setattr(fake.servicer, "answer", answer)
    source: Any = slow_async() if read_all is read_all_async else slow()
    assert texts(read_all(fake.address, source, timeout_s=1.0)) == ["0", "1"]


def test_a_caller_that_takes_its_time_is_no_silent_server(
    fake: FakeServer, read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    awake, at_once = threading.Event(), fake.servicer.answer

    def answer(image: bytes) -> Any:
        if image == b"text:2":  # nothing is there when the caller asks again
            awake.wait(30)
        return at_once(image)

    monkeypatch.setattr(fake.servicer, "answer", answer)

    def read_sync() -> None:
        with RecognizerClient(fake.address, timeout_s=1.0) as client:
            for outcome in client.recognize_stream(lines(20), look_ahead=4):
                seen.append(outcome.result().text)
                if len(seen) == 2:
                    time.sleep(1.5)
                    awake.set()

    async def read_async() -> None:
        async with AsyncRecognizerClient(fake.address, timeout_s=1.0) as client:
            async for outcome in client.recognize_stream(lines(20), look_ahead=4):
                seen.append(outcome.result().text)
                if len(seen) == 2:
                    time.sleep(1.5)
                    awake.set()

    asyncio.run(read_async()) if read_all is read_all_async else read_sync()
    assert seen == [str(index) for index in range(20)]


def test_the_sources_own_failure_is_told_where_the_server_fails_too(read_all: ReadAll) -> None:
    def failing() -> Iterator[bytes]:
        yield b"text:0"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone") as caught:
        read_all(f"127.0.0.1:{free_port()}", failing())
    assert isinstance(caught.value.__cause__, ServerUnavailableError)


def test_a_source_that_is_cancelled_ends_its_stream(fake: FakeServer) -> None:
    async def cancelled() -> AsyncIterator[bytes]:
        yield b"text:0"
        raise asyncio.CancelledError

    async def read() -> list[str]:
        seen = []
        async with AsyncRecognizerClient(fake.address) as client:
            try:
                async for outcome in client.recognize_stream(cancelled()):
                    seen.append(outcome.result().text)  # noqa: PERF401 -- those before the end count
            except asyncio.CancelledError:
                seen.append("cancelled")
        return seen

    assert asyncio.run(asyncio.wait_for(read(), 10)) == ["0", "cancelled"]


def test_closing_the_client_ends_what_is_open(fake: FakeServer) -> None:
    async def read() -> list[str]:
        client = AsyncRecognizerClient(fake.address)

        async def endless() -> AsyncIterator[bytes]:
            yield b"text:0"
            await asyncio.sleep(60)

        async def stream() -> str:
            try:
                async for _ in client.recognize_stream(endless()):
                    pass
            except ClientClosedError as error:
                return str(error)
            return "ended"

        async def call() -> str:
            try:
                await client.recognize(b"slow")
            except ClientClosedError as error:
                return str(error)
            return "answered"

        tasks = [asyncio.create_task(stream()), asyncio.create_task(call())]
        await asyncio.sleep(0.3)
        await client.close()
        results = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        with pytest.raises(ClientClosedError):
            await client.recognize(b"text:0")
        return results

    assert asyncio.run(read()) == ["the client is closed"] * 2


def test_a_closed_client_says_so(fake: FakeServer) -> None:
    client = RecognizerClient(fake.address)
    client.close()
    with pytest.raises(ClientClosedError, match="the client is closed"):
        client.recognize(b"text:0")
    with pytest.raises(ClientClosedError):
        client.recognize_stream([b"text:0"])
    client = RecognizerClient(fake.address)
    stream = client.recognize_stream([b"text:0"])
    client.close()
    with pytest.raises(ClientClosedError):
        next(stream)


def test_one_image_is_not_several(fake: FakeServer, read_all: ReadAll, tmp_path: Path) -> None:
    for one in (
        "line.png",
        b"text:a",
        tmp_path,
        io.BytesIO(b"text:a\ntext:b\n"),
        np.zeros((30, 100), np.uint8),
        np.zeros((30, 100, 1), np.uint8),
        np.zeros((30, 100, 3), np.uint8),
    ):
        with pytest.raises(TypeError, match="need several images"):
            read_all(fake.address, one)


def test_there_need_be_no_limit_of_time(fake: FakeServer, read_all: ReadAll) -> None:
    assert texts(read_all(fake.address, lines(3), timeout_s=float("inf"))) == ["0", "1", "2"]


def test_a_program_may_end_within_a_stream(fake: FakeServer) -> None:
    script = f"""
import itertools, longhand_client
client = longhand_client.RecognizerClient("{fake.address}")
stream = client.recognize_stream(itertools.repeat(b"text:0"))
print(next(stream).result().text)
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (outcome.returncode, outcome.stdout) == (0, "0\n"), outcome.stderr


def test_what_a_server_says_behind_the_last_answer_is_not_heard(fake: FakeServer, read_all: ReadAll) -> None:
    fake.servicer.stream_fails_in_the_end = True
    assert texts(read_all(fake.address, lines(3))) == ["0", "1", "2"]
    assert fake.servicer.stream_images == 3
