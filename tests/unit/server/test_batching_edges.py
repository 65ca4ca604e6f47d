"""Who leaves the batcher or comes to it at the last moment, and when others are to come again."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence

import pytest

from longhand_server.batching import DynamicBatcher
from longhand_server.config import BatchingConfig
from longhand_server.errors import DeadlineExceededError


class Worker:
    """Runs batches once the test says so."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def run(self, items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        await self.go_on.wait()
        return list(items)


async def test_whoever_leaves_just_as_there_is_room_makes_room_for_the_next() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=1, max_queue=1))
    running, queued = batcher.submit(0), batcher.submit(1)
    first, second = (asyncio.create_task(batcher.room()) for _ in "12")
    await asyncio.sleep(0)
    queued.cancel()
    await asyncio.sleep(0)
    assert batcher._promised == 1  # the first has been woken, and does not know it yet
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    async with asyncio.timeout(10):
        await second
    assert batcher._promised == 0
    worker.go_on.set()
    assert await running == 0


async def test_whoever_is_let_in_and_has_nothing_to_submit_lets_the_next_in() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=1, max_queue=1))
    running, queued = batcher.submit(0), batcher.submit(1)
    waiting = [asyncio.create_task(batcher.room()) for _ in range(3)]
    await asyncio.sleep(0)
    queued.cancel()  # the only place that becomes free
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    worker.go_on.set()
    assert await running == 0


async def test_who_no_longer_waits_for_room_is_not_kept_in_memory() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=1, max_queue=1))
    running, queued = batcher.submit(0), batcher.submit(1)
    first = asyncio.create_task(batcher.room())
    await asyncio.sleep(0)  # the first one stays, and the others come after it
    for _ in range(100):
        tasks = [asyncio.create_task(batcher.room(priority=-1)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(batcher._room_waiters.heap) < 100
    worker.go_on.set()
    await asyncio.gather(running, queued, first)


async def test_what_is_run_again_alone_is_not_run_after_its_deadline() -> None:
    ran: list[list[int]] = []

    async def run(items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        ran.append(list(items))
        if len(items) > 1:
            raise ValueError("all")
        await asyncio.sleep(0.02)
        return list(items)

    batcher = DynamicBatcher(run, BatchingConfig(max_batch_size=3, max_delay_ms=10_000))
    soon = asyncio.get_running_loop().time() + 0.01
    first, late, last = batcher.submit(1), batcher.submit(2, deadline=soon), batcher.submit(3)
    with pytest.raises(DeadlineExceededError):
        await late
    assert list(await asyncio.gather(first, last)) == [1, 3]
    assert ran == [[1, 2, 3], [1], [3]]


async def test_what_waits_for_a_batch_to_fill_is_answered_before_the_close_is_over() -> None:
    worker = Worker()
    worker.go_on.set()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=2, max_delay_ms=10_000))
    only = batcher.submit(7)
    async with asyncio.timeout(5):
        await batcher.close()
    assert only.result() == 7


async def test_half_of_the_queue_is_gone_when_others_are_to_come_again() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=1, max_queue=8), concurrency=2)
    futures = [batcher.submit(number) for number in range(10)]
    assert batcher.retry_after_ms() == 50  # nothing is known yet
    batcher._seconds_per_item = 0.5
    assert batcher.retry_after_ms() == 4 * 500 / 2
    batcher._seconds_per_item = 1000.0
    assert batcher.retry_after_ms() == 10_000
    worker.go_on.set()
    await asyncio.gather(*futures)


async def test_what_is_cancelled_in_the_queue_is_not_kept_in_memory() -> None:
    class Item:
        pass

    async def run(items: Sequence[Item], hand_over: Callable[[], None]) -> list[Exception | None]:
        await asyncio.Event().wait()
        return []

    batcher: DynamicBatcher[Item, None] = DynamicBatcher(run, BatchingConfig(max_batch_size=1))
    running, item = batcher.submit(Item()), Item()
    seen = weakref.ref(item)
    waiting = [batcher.submit(item), batcher.submit(Item())]
    del item
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert seen() is None
    assert batcher.waiting == 1
    waiting[1].cancel()
    # A batch that is cut short, as at the end of the process, leaves nobody waiting.
    for batch in batcher._running:
        batch.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([running])
    assert running.cancelled()


async def test_the_delay_is_that_of_whoever_has_waited_longest_and_still_waits() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=3, max_delay_ms=10_000))
    loop = asyncio.get_running_loop()
    gone, long = (batcher.submit(number, caller="early") for number in (1, 2))
    latest = loop.time() + 10
    gone.cancel()
    await asyncio.sleep(0.01)
    # A caller of its own goes first, though it came later; other sizes have a batch of their own.
    short, wide = batcher.submit(3, caller="late"), batcher.submit(4, caller="late", size=100)
    assert batcher._timer is not None
    assert batcher._timer.when() <= latest
    assert (batcher.waiting, batcher.running) == (3, 0)
    worker.go_on.set()
    await batcher.close()
    assert [future.result() for future in (long, short, wide)] == [2, 3, 4]


async def test_who_has_been_cancelled_hurries_nobody() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=3, max_delay_ms=10_000))
    for gone in [batcher.submit(number, caller="early") for number in (1, 2)]:
        gone.cancel()
    await asyncio.sleep(0.01)
    since = asyncio.get_running_loop().time()
    last = batcher.submit(3, caller="late")  # goes before the second of those who are gone
    assert batcher._timer is not None
    assert batcher._timer.when() >= since + 10
    worker.go_on.set()
    await batcher.close()
    assert last.result() == 3


async def test_who_has_been_cancelled_fills_no_batch() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, BatchingConfig(max_batch_size=3, max_delay_ms=10_000))
    first, second = batcher.submit(1), batcher.submit(2)
    second.cancel()
    await asyncio.sleep(0)
    third = batcher.submit(3)
    assert (batcher.waiting, batcher.running) == (2, 0)
    fourth = batcher.submit(4)
    assert (batcher.waiting, batcher.running) == (0, 1)
    worker.go_on.set()
    assert list(await asyncio.gather(first, third, fourth)) == [1, 3, 4]


async def test_a_batch_that_was_handed_over_makes_room_once() -> None:
    running = most = 0

    async def run(items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        hand_over()
        return list(items)

    batcher = DynamicBatcher(run, BatchingConfig(max_batch_size=1), concurrency=2)
    await asyncio.gather(*(batcher.submit(number) for number in range(40)))
    assert most == 2
