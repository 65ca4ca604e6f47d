"""Worker threads alone: every outcome reaches its own future, on the loop's thread, and nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import deque
from typing import Any

import pytest

from longhand_server.errors import LonghandError
from longhand_server.workers import Workers, call_in_thread


async def test_each_future_gets_its_own_outcome() -> None:
    workers = Workers(3, "test")

    def work(number: int) -> int:
        if number % 10 == 7:
            raise ValueError(str(number))
        return number * 2

    outcomes = await asyncio.gather(*(workers.submit(work, n) for n in range(5000)), return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        if number % 10 == 7:
            assert isinstance(outcome, ValueError)
            assert str(outcome) == str(number)
        else:
            assert outcome == number * 2
    workers.close()


async def test_a_thread_outlives_whatever_a_function_raises() -> None:
    class Odd(BaseException):
        pass

    def leave() -> None:
        raise Odd

    workers = Workers(1, "test")
    async with asyncio.timeout(10):
        with pytest.raises(Odd):
            await workers.submit(leave)
        assert await workers.submit(lambda: "done") == "done"
    workers.close()


async def test_threads_work_at_the_same_time_and_the_loop_goes_on() -> None:
    workers = Workers(2, "test")
    together = threading.Barrier(2, timeout=10)
    futures = [workers.submit(together.wait) for _ in range(2)]
    ticks = 0
    while not all(future.done() for future in futures):
        await asyncio.sleep(0)
        ticks += 1
    assert sorted(await asyncio.gather(*futures)) == [0, 1]
    assert ticks > 0
    workers.close()


async def test_a_cancelled_future_harms_nobody() -> None:
    workers = Workers(1, "test")
    futures = [workers.submit(time.sleep, 0.01) for _ in range(5)]
    last = workers.submit(lambda: "done")
    for future in futures[1:4]:
        future.cancel()
    assert await last == "done"
    assert [future.cancelled() for future in futures] == [False, True, True, True, False]
    workers.close()


async def test_a_cancelled_future_does_not_keep_the_next_one_s_outcome() -> None:
    workers = Workers(1, "test")
    done = threading.Event()
    first, second, _ = workers.submit(int), workers.submit(int), workers.submit(done.set)
    assert done.wait(10)  # both outcomes lie there, and the loop has looked at neither
    first.cancel()
    async with asyncio.timeout(10):
        assert await second == 0
    workers.close()


async def test_neither_arguments_nor_results_are_kept() -> None:
    class Thing:
        pass

    workers = Workers(1, "test")
    thing = Thing()
    seen = weakref.ref(thing)
    assert await workers.submit(lambda given: given is not None, thing)
    del thing
    gc.collect()
    assert seen() is None
    workers.close()


async def test_close_does_what_was_submitted_and_ends_the_threads() -> None:
    before = threading.active_count()
    workers = Workers(2, "closing")
    futures = [workers.submit(time.sleep, 0.01) for _ in range(6)]
    workers.close()
    await asyncio.gather(*futures)
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end, [thread.name for thread in threading.enumerate()]
        await asyncio.sleep(0.01)


async def test_a_thread_for_one_call_ends_with_it() -> None:
    before = threading.active_count()
    assert await call_in_thread(len, "ab") == 2
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end, [thread.name for thread in threading.enumerate()]
        await asyncio.sleep(0.01)


def test_a_loop_that_is_gone_ends_the_thread() -> None:
    gone = threading.Event()

    async def leave() -> Workers:
        workers = Workers(1, "orphan")
        workers.submit(gone.wait, 60)
        return workers

    workers = asyncio.run(leave())
    gone.set()
    end = time.monotonic() + 10
    while any(thread.name.startswith("orphan") for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
    workers.close()


async def test_what_comes_after_the_loop_s_last_look_wakes_it_again() -> None:
    workers = Workers(1, "test")
    go_on = threading.Event()

    class Outcomes(deque[Any]):
        """Found empty for the first time, it gets one more before the loop can say so."""

        def __bool__(self) -> bool:
            there = len(self) > 0
            if not there and not go_on.is_set():
                go_on.set()
                time.sleep(0.05)
            return there

    workers._outcomes = Outcomes()
    first, second = workers.submit(lambda: 1), workers.submit(go_on.wait, 10)
    async with asyncio.timeout(10):
        assert (await first, await second) == (1, True)
    workers.close()


@pytest.mark.parametrize("count", [1, 4])
async def test_outcomes_wake_a_loop_that_sleeps(count: int) -> None:
    workers = Workers(count, "test")
    for _ in range(50):
        async with asyncio.timeout(10):
            await workers.submit(time.sleep, 0.001)
    workers.close()


async def test_threads_that_the_system_does_not_let_start(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(
        LonghandError, match=r"^thread 3 of 4 \(line\): can't start new thread; .* is too low"
    ):
        Workers(4, "line")
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()
