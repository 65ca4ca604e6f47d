"""AnswerStream alone: bounds, order, half-close, drain, cancellation."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from longhand_server.errors import InvalidRequestError, ShuttingDownError, StreamIdleError
from longhand_server.streaming import AnswerStream


class Source:
    """Requests 0 .. count - 1; remembers how far it was read."""

    def __init__(self, count: int, *, endless: bool = False) -> None:
        self.read = 0
        self._count = count
        self._endless = endless

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if self.read == self._count:
            if self._endless:
                await asyncio.Event().wait()
            raise StopAsyncIteration
        self.read += 1
        return self.read - 1


async def test_every_request_is_answered_in_any_order() -> None:
    async def answer(n: int) -> int:
        await asyncio.sleep(0.001 * (n % 7))
        return n

    answers = [n async for n in AnswerStream(Source(200), answer, 16).answers()]
    assert sorted(answers) == list(range(200))
    assert answers != sorted(answers)


async def test_a_slow_reader_stops_the_reading_of_requests() -> None:
    async def answer(n: int) -> int:
        return n

    source = Source(1000)
    answers = AnswerStream(source, answer, 8).answers()
    taken = [await anext(answers)]
    await asyncio.sleep(0.05)
    assert source.read <= 8 + 1
    taken += [n async for n in answers]
    assert sorted(taken) == list(range(1000))


async def test_answers_that_are_ready_come_together() -> None:
    release = asyncio.Event()

    async def answer(n: int) -> int:
        if n:
            await release.wait()
        return n

    stream = AnswerStream(Source(25), answer, 64).groups(10)
    groups = [await anext(stream)]
    await asyncio.sleep(0.02)
    release.set()
    await asyncio.sleep(0.02)
    groups += [group async for group in stream]
    # The first does not wait for the others; then what is ready, at most ten.
    assert [len(group) for group in groups] == [1, 10, 10, 4]
    assert sorted(n for group in groups for n in group) == list(range(25))


async def test_a_slow_reader_of_groups_stops_the_reading_of_requests() -> None:
    async def answer(n: int) -> int:
        return n

    source = Source(1000)
    groups = AnswerStream(source, answer, 8).groups(5)
    taken = [await anext(groups)]
    await asyncio.sleep(0.05)
    assert source.read <= 8 + 5
    for _ in range(20):
        for _ in range(50):
            await asyncio.sleep(0)
        taken.append(await anext(groups))
    # Every answer that is sent makes room for another one: five of eight go out, then the other three.
    assert min(len(group) for group in taken[1:]) >= 3
    taken += [group async for group in groups]
    assert sorted(n for group in taken for n in group) == list(range(1000))


async def test_drain_answers_what_was_read_and_then_says_so() -> None:
    release = asyncio.Event()

    async def answer(n: int) -> int:
        await release.wait()
        return n

    source = Source(5, endless=True)
    stream = AnswerStream(source, answer, 64)
    answers: list[int] = []

    async def consume() -> None:
        async for n in stream.answers():
            answers.append(n)  # noqa: PERF401 - what came before the error counts

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0.02)
    stream.drain()
    await asyncio.sleep(0.02)
    assert not consumer.done()
    stream.drain()  # a second one while it waits harms nothing
    release.set()
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(consumer, 10)
    assert sorted(answers) == [0, 1, 2, 3, 4]


async def test_a_stream_on_which_nothing_comes_ends() -> None:
    async def answer(n: int) -> int:
        return n

    answers: list[int] = []

    async def consume() -> None:
        async for n in AnswerStream(Source(3, endless=True), answer, 4, idle_s=0.05).answers():
            answers.append(n)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(StreamIdleError, match=r"no image came for 0\.05 s"):
        await asyncio.wait_for(consume(), 30)
    assert answers == [0, 1, 2]


async def test_a_stream_is_not_idle_while_it_answers_or_the_client_reads_slowly() -> None:
    async def answer(n: int) -> int:
        await asyncio.sleep(0.15 * n)
        return n

    loop = asyncio.get_running_loop()
    answers = AnswerStream(Source(2, endless=True), answer, 4, idle_s=0.1).answers()
    taken = [await anext(answers)]
    await asyncio.sleep(0.1)
    taken.append(await anext(answers))
    await asyncio.sleep(0.1)
    assert taken == [0, 1]
    since = loop.time()
    with pytest.raises(StreamIdleError):
        await asyncio.wait_for(anext(answers), 30)
    assert loop.time() - since >= 0.09  # counted from when the last answer was taken


@pytest.mark.parametrize("steps", range(5))
async def test_a_drain_ends_a_stream_however_far_its_beginning_has_come(steps: int) -> None:
    async def answer(n: int) -> int:
        return n

    stream = AnswerStream(Source(0, endless=True), answer, 4)
    reading = asyncio.ensure_future(_list(stream.answers()))
    for _ in range(steps):
        await asyncio.sleep(0)
    stream.drain()
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(reading, 5)


async def test_a_stream_that_the_client_has_ended_is_drained_without_an_error() -> None:
    release = asyncio.Event()

    async def answer(n: int) -> int:
        await release.wait()
        return n

    source = Source(5)
    stream = AnswerStream(source, answer, 64)
    answers = asyncio.ensure_future(_list(stream.answers()))
    await asyncio.sleep(0.02)
    assert source.read == 5
    stream.drain()
    release.set()
    assert sorted(await answers) == list(range(5))


async def _list(answers: AsyncIterator[int]) -> list[int]:
    return [answer async for answer in answers]


async def test_a_raising_answer_ends_the_stream_after_the_others() -> None:
    async def answer(n: int) -> int:
        if n == 2:
            raise InvalidRequestError("no")
        await asyncio.sleep(0.01)
        return n

    answers = AnswerStream(Source(3, endless=True), answer, 64).answers()
    assert sorted([await anext(answers), await anext(answers)]) == [0, 1]
    with pytest.raises(InvalidRequestError):
        await anext(answers)


class _Message:
    pass


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_message_at_fault_is_not_kept_until_a_collection(is_read: bool) -> None:
    seen: list[weakref.ref[_Message]] = []

    async def requests() -> AsyncIterator[_Message]:
        message = _Message()
        seen.append(weakref.ref(message))
        if not is_read:
            raise InvalidRequestError("no")
        yield message

    async def answer(message: _Message) -> None:
        raise InvalidRequestError("no")

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(InvalidRequestError):
            await anext(AnswerStream(requests(), answer, 4).answers())
        await asyncio.sleep(0.02)
        assert seen[0]() is None
    finally:
        gc.enable()


async def test_an_idle_stream_keeps_nothing_of_what_came_on_it() -> None:
    seen: list[weakref.ref[_Message]] = []

    async def requests() -> AsyncIterator[_Message]:
        message = _Message()
        seen.append(weakref.ref(message))
        yield message
        del message
        await asyncio.Event().wait()

    async def answer(message: _Message) -> int:
        return 1

    answers = AnswerStream(requests(), answer, 4).answers()
    assert await anext(answers) == 1
    waiting = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.02)
    assert seen[0]() is None
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_leaving_early_cancels_the_work() -> None:
    cancelled = 0

    async def answer(n: int) -> int:
        nonlocal cancelled
        if n == 0:
            return n
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return n

    answers = AnswerStream(Source(5, endless=True), answer, 64).answers()
    assert await anext(answers) == 0
    await asyncio.sleep(0.02)
    await answers.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0.01)
    assert cancelled == 4
