"""The dynamic batcher alone, on items that are plain integers."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable, Sequence

import pytest

from longhand_server.batching import DynamicBatcher
from longhand_server.config import BatchingConfig
from longhand_server.errors import DeadlineExceededError, OverloadedError, ShuttingDownError


class Worker:
    """Runs batches when the test says so; remembers them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.seconds = seconds
        self.poison: set[int] = set()

    async def run(self, items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if bad := self.poison.intersection(items):
            raise ValueError(f"poisoned by {bad}")
        return [item * 10 for item in items]


def config(**changes: float) -> BatchingConfig:
    return BatchingConfig(**{"max_batch_size": 4, "max_queue": 1000, **changes})  # type: ignore[arg-type]


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


async def test_room_lets_waiters_in_one_by_one() -> None:
    worker = Worker(seconds=0.001)
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=2))
    most = 0

    async def patient(n: int) -> int:
        nonlocal most
        await batcher.room()
        future = batcher.submit(n)
        most = max(most, batcher.waiting)
        return await future

    tasks = [asyncio.create_task(patient(n)) for n in range(60)]
    await asyncio.sleep(0.01)
    for task in tasks[20:40]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    done = [result for result in results if not isinstance(result, BaseException)]
    assert len(done) >= 40
    assert most <= 2
    assert batcher.waiting == 0


async def test_who_waits_for_room_leaves_some_to_others() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=10), patient_queue=4)

    async def patient(n: int) -> int:
        await batcher.room()
        return await batcher.submit(n)

    tasks = [asyncio.create_task(patient(n)) for n in range(20)]
    await asyncio.sleep(0.01)
    assert batcher.waiting == 4
    hasty = [batcher.submit(100 + n) for n in range(6)]
    with pytest.raises(OverloadedError):
        batcher.submit(200)
    worker.gate.set()
    assert await asyncio.gather(*tasks, *hasty) == [10 * n for n in (*range(20), *range(100, 106))]


async def test_room_goes_by_priority_and_then_by_fair_turns() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=1))
    let_in: list[tuple[str, int]] = []

    async def patient(caller: str, priority: int, n: int) -> None:
        await batcher.room(priority=priority, caller=caller)
        let_in.append((caller, n))
        await batcher.submit(n, priority=priority, caller=caller)

    first = [batcher.submit(n) for n in (0, 1)]  # one runs, one fills the queue
    wishes = [("flood", 0, n) for n in range(5)] + [("low", -1, 0), ("little", 0, 0), ("high", 1, 0)]
    tasks = [asyncio.create_task(patient(*wish)) for wish in wishes]
    await asyncio.sleep(0.01)
    assert let_in == []
    worker.gate.set()
    await asyncio.gather(*first, *tasks)
    assert let_in[0] == ("high", 0)
    assert let_in[-1] == ("low", 0)
    assert let_in.index(("little", 0)) <= 2
    assert [n for caller, n in let_in if caller == "flood"] == [0, 1, 2, 3, 4]


async def test_closing_lets_everybody_go_who_waits_for_room() -> None:
    worker = Worker(seconds=0.001)
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=4), patient_queue=2)

    async def patient(n: int) -> int:
        await batcher.room()
        return await batcher.submit(n)

    tasks = [asyncio.create_task(patient(n)) for n in range(60)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await batcher.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {int, ShuttingDownError}


async def test_who_gave_up_waiting_pays_for_no_turns() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=1))
    let_in: list[str] = []

    async def patient(caller: str) -> None:
        await batcher.room(caller=caller)
        let_in.append(caller)
        await batcher.submit(0, caller=caller)

    running, queued = batcher.submit(0), batcher.submit(1)
    given_up = [asyncio.create_task(patient("unlucky")) for _ in range(100)]
    await asyncio.sleep(0.01)
    for task in given_up:
        task.cancel()
    await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(patient(caller)) for caller in ["other"] * 20 + ["unlucky"] * 20]
    await asyncio.sleep(0.01)
    worker.gate.set()
    await asyncio.gather(running, queued, *tasks)
    assert let_in[:10].count("unlucky") >= 4


async def test_nobody_overtakes_who_has_just_been_let_in() -> None:
    worker = Worker()
    worker.gate.clear()
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1, max_queue=1))
    let_in: list[str] = []

    async def patient(name: str) -> None:
        await batcher.room()
        let_in.append(name)
        await batcher.submit(0)

    running, queued = batcher.submit(0), batcher.submit(1)
    tasks = [asyncio.create_task(patient("first"))]
    await asyncio.sleep(0)
    queued.cancel()
    tasks.append(asyncio.create_task(patient("second")))  # asks in the step in which the place becomes free
    await asyncio.sleep(0.01)
    assert let_in == ["first"]
    worker.gate.set()
    await asyncio.gather(running, *tasks)
    assert let_in == ["first", "second"]
    assert batcher._promised == 0


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
async def test_who_gives_up_again_and_again_still_gets_a_fair_share(patient: bool) -> None:
    worker = Worker(seconds=0.002)
    batcher = DynamicBatcher(worker.run, config(max_batch_size=1), patient_queue=1)
    served: collections.Counter[str] = collections.Counter()

    async def ask(caller: str, seconds: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    if patient:
                        await batcher.room(caller=caller)
                    await batcher.submit(0, caller=caller)
                served[caller] += 1

    # More at a time than are served before they give up.
    tasks = [asyncio.create_task(ask("hasty", 0.04)) for _ in range(60)]
    tasks += [asyncio.create_task(ask("steady", 60.0)) for _ in range(20)]
    await asyncio.sleep(1.2)
    for task in tasks:
        task.cancel()
    assert served["hasty"] > 0.4 * served["steady"], served


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
    await asyncio.sleep(0.2)
    assert most == 2
    assert batcher.waiting == 0  # every batch was handed over although none is answered
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
