"""Those who would rather wait for room in the batcher's queue than be refused."""

from __future__ import annotations

import asyncio

import pytest

from helpers.batch_worker import Worker, config
from longhand_server.batching import DynamicBatcher
from longhand_server.errors import OverloadedError, ShuttingDownError


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
