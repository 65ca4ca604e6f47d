"""Whose items a batcher runs first: priorities, and fair turns of the callers."""

from __future__ import annotations

import asyncio
import collections
import contextlib

import pytest

from helpers.batch_worker import Worker, config
from helpers.virtual_time import VirtualLoop
from longhand_server.batching import DynamicBatcher


async def test_a_flood_does_not_starve_other_callers() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1))
    order: list[str] = []

    def submit(caller: str, n: int) -> asyncio.Future[int]:
        future = batcher.submit(n, caller=caller, size=100)
        future.add_done_callback(lambda _: order.append(caller))
        return future

    futures = [submit("flood", n) for n in range(500)]
    futures += [submit(f"small {caller}", caller) for caller in range(5) for _ in range(2)]
    worker.gate.set()
    await asyncio.gather(*futures)
    # Seven rounds at most: each small caller is served once a round, beside one item of the flood.
    last_small = max(place for place, caller in enumerate(order) if caller != "flood")
    assert last_small < 20


@pytest.mark.parametrize("patient", [False, True], ids=["in the queue", "for room"])
def test_who_gives_up_again_and_again_still_gets_a_fair_share(patient: bool) -> None:
    # By a clock of the test's own: a busy machine would serve nobody before the hasty give up.
    loop = VirtualLoop()
    worker = Worker(seconds=0.002)
    hasty, steady = 1, 2

    async def ask(batcher: DynamicBatcher[int, int], caller: int, seconds: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    if patient:
                        await batcher.room(caller=str(caller))
                    await batcher.submit(caller, caller=str(caller))

    async def begin() -> list[asyncio.Task[None]]:
        batcher = DynamicBatcher(worker.run, config(max_batch_size=1), patient_queue=1)
        # More at a time than are served before they give up.
        tasks = [asyncio.create_task(ask(batcher, hasty, 0.04)) for _ in range(60)]
        return tasks + [asyncio.create_task(ask(batcher, steady, 60.0)) for _ in range(20)]

    tasks = loop.run_until_complete(begin())
    for _ in range(100):
        loop.advance(0.002)
    for task in tasks:
        task.cancel()
    loop.advance(0.002)
    loop.close()
    run = collections.Counter(item for (item,) in worker.batches)
    assert run[hasty] > 0.8 * run[steady] > 0, run


async def test_places_that_were_given_up_cannot_be_saved_up() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1))
    order: list[str] = []

    def submit(caller: str) -> asyncio.Future[int]:
        future = batcher.submit(0, caller=caller)
        future.add_done_callback(lambda _: None if future.cancelled() else order.append(caller))
        return future

    futures = [submit("steady") for _ in range(60)]
    for future in [submit("saver") for _ in range(30)]:
        future.cancel()
    worker.gate.set()
    await futures[40]
    worker.gate.clear()
    futures += [submit("saver") for _ in range(10)]
    order.clear()
    worker.gate.set()
    await asyncio.gather(*futures)
    assert order[:10].count("saver") <= 6, order


async def test_fair_by_size_across_buckets() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=5000))
    served: collections.Counter[str] = collections.Counter()

    def submit(caller: str, size: int) -> asyncio.Future[int]:
        future = batcher.submit(size, caller=caller, size=size)
        future.add_done_callback(lambda _: served.update({caller: size}))
        return future

    futures = [submit("wide", 1000) for _ in range(100)] + [submit("narrow", 100) for _ in range(1000)]
    checked = asyncio.get_running_loop().create_future()
    futures[50].add_done_callback(lambda _: checked.set_result(dict(served)))
    worker.gate.set()
    halfway = await checked
    assert halfway["narrow"] == pytest.approx(halfway["wide"], rel=0.1)
    await asyncio.gather(*futures)


async def test_priority_goes_first() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=2))
    futures = [batcher.submit(0)]
    await asyncio.sleep(0)
    futures += [batcher.submit(n, priority=priority) for n, priority in ((1, -1), (2, 0), (3, 1), (4, 1))]
    worker.gate.set()
    await asyncio.gather(*futures)
    assert worker.batches == [[0], [3, 4], [2], [1]]
