"""The dynamic batcher alone, on items that are plain integers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from helpers.batch_worker import Worker, config
from longhand_server.batching import DynamicBatcher
from longhand_server.errors import DeadlineExceededError, OverloadedError, ShuttingDownError


async def test_each_item_gets_its_own_result() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, config())
    futures = [batcher.submit(n) for n in range(50)]
    assert await asyncio.gather(*futures) == [n * 10 for n in range(50)]
    assert max(map(len, worker.batches)) == 4
    assert batcher.waiting == batcher.running == 0


async def test_a_free_worker_starts_at_once_and_a_busy_one_collects() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config())
    futures = [batcher.submit(0)]
    await asyncio.sleep(0)
    futures += [batcher.submit(n) for n in (1, 2, 3)]
    await asyncio.sleep(0.01)
    assert worker.batches == [[0]]
    worker.gate.set()
    await asyncio.gather(*futures)
    assert worker.batches == [[0], [1, 2, 3]]


async def test_delay_waits_for_more_but_a_full_batch_does_not_wait() -> None:
    worker = Worker()
    batcher = DynamicBatcher(worker.run, config(max_delay_ms=100, max_batch_size=3))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    first = batcher.submit(1)
    await asyncio.sleep(0.02)
    assert list(await asyncio.gather(first, batcher.submit(2), batcher.submit(3))) == [10, 20, 30]
    assert loop.time() - begun < 0.09
    begun = loop.time()
    assert await batcher.submit(4) == 40
    assert 0.09 < loop.time() - begun < 0.5
    assert worker.batches == [[1, 2, 3], [4]]


async def test_batches_hold_items_of_like_size_only() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=64))
    futures = [batcher.submit(300, size=300)]
    sizes = [200 + 37 * n % 1800 for n in range(400)]
    futures += [batcher.submit(size, size=size) for size in sizes]
    worker.gate.set()
    await asyncio.gather(*futures)
    padded = sum(len(batch) * max(batch) for batch in worker.batches)
    assert 1 - (sum(sizes) + 300) / padded < 0.2
    assert len(worker.batches) < 40


async def test_a_failure_reaches_only_the_item_that_caused_it() -> None:
    worker = Worker()
    worker.poison = {7}
    batcher = DynamicBatcher(worker.run, config(max_batch_size=16))
    results = await asyncio.gather(*(batcher.submit(n) for n in range(12)), return_exceptions=True)
    assert [n for n, result in enumerate(results) if isinstance(result, ValueError)] == [7]
    assert [result for n, result in enumerate(results) if n != 7] == [n * 10 for n in range(12) if n != 7]
    assert await batcher.submit(99) == 990


async def test_a_wrong_number_of_results_is_an_error_not_a_mix_up() -> None:
    async def run(items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        return [1] * (len(items) + 1)

    batcher = DynamicBatcher(run, config())
    results = await asyncio.gather(*(batcher.submit(n) for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, RuntimeError) for result in results)


async def test_full_queue_refuses_at_once_with_a_retry_time() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=3))
    futures = [batcher.submit(n) for n in range(4)]  # one runs, three wait
    with pytest.raises(OverloadedError, match="3 images wait already, at most 3 may") as caught:
        batcher.submit(4)
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms >= 50
    worker.gate.set()
    assert await asyncio.gather(*futures) == [0, 10, 20, 30]


async def test_expired_items_never_run() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1))
    now = asyncio.get_running_loop().time()
    first = batcher.submit(1)
    late = batcher.submit(2, deadline=now + 0.01)
    fine = batcher.submit(3, deadline=now + 60)
    await asyncio.sleep(0.03)
    worker.gate.set()
    with pytest.raises(DeadlineExceededError, match="in the queue"):
        await late
    assert list(await asyncio.gather(first, fine)) == [10, 30]
    assert worker.batches == [[1], [3]]


async def test_cancelled_items_leave_the_queue() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=3))
    first = batcher.submit(1)
    dropped = [batcher.submit(n) for n in (2, 3, 4)]
    for future in dropped:
        future.cancel()
    await asyncio.sleep(0)
    assert batcher.waiting == 0
    kept = batcher.submit(5)
    worker.gate.set()
    assert list(await asyncio.gather(first, kept)) == [10, 50]
    assert worker.batches == [[1], [5]]


async def test_cancel_storm_leaves_nothing_behind() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=100))
    first = batcher.submit(0)
    for n in range(30_000):
        batcher.submit(n, size=1 + n % 900, caller=str(n)).cancel()
        await asyncio.sleep(0)
    assert batcher.waiting == 0
    assert sum(len(lane.heap) for lane in batcher._lanes.values()) < 5_000
    assert len(batcher._clock._last_finish) < 5_000
    worker.gate.set()
    assert await first == 0
    assert worker.batches == [[0]]


async def test_cancelling_an_item_that_runs_harms_nobody() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config())
    blocker = batcher.submit(0)
    await asyncio.sleep(0)
    futures = [batcher.submit(n) for n in (1, 2, 3)]
    worker.gate.set()
    await blocker
    worker.gate.clear()
    await asyncio.sleep(0)
    futures[1].cancel()
    worker.gate.set()
    assert list(await asyncio.gather(futures[0], futures[2])) == [10, 30]


async def test_concurrency_and_hand_over() -> None:
    running = most = 0
    release = asyncio.Event()

    async def run(items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        hand_over()
        await release.wait()
        return list(items)

    batcher = DynamicBatcher(run, config(max_batch_size=1), concurrency=2)
    futures = [batcher.submit(n) for n in range(20)]
    async with asyncio.timeout(60):
        while batcher.waiting:  # until every batch was handed over, although none is answered
            await asyncio.sleep(0.01)
    assert most == 2
    assert not any(future.done() for future in futures)
    release.set()
    assert await asyncio.gather(*futures) == list(range(20))


async def test_close_answers_what_was_accepted_and_refuses_the_rest() -> None:
    worker = Worker(seconds=0.01)
    batcher = DynamicBatcher(worker.run, config(max_batch_size=2, max_delay_ms=5_000))
    futures = [batcher.submit(n) for n in range(5)]
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDownError):
        batcher.submit(9)
    assert await asyncio.wait_for(asyncio.gather(*futures), 2) == [0, 10, 20, 30, 40]
    await closing
