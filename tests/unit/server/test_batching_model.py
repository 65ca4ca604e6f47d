"""The dynamic batcher against a model of what it promises, over random orders of everything that may befall it."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from helpers.virtual_time import VirtualLoop
from longhand_server import batching
from longhand_server.batching import DynamicBatcher
from longhand_server.config import BatchingConfig
from longhand_server.errors import LonghandError, OverloadedError, ShuttingDownError

_NEVER = 9e9
# The caller who never gives anything up.
_STEADY = "steady"


@dataclass(eq=False)
class _Item:
    """What the test knows of an item that it submits."""

    number: int
    caller: str
    arrived: float
    deadline: float = _NEVER
    priority: int = 0
    size: int = 100
    future: asyncio.Future[int] | None = None
    runs: int = 0

    @property
    def is_alive(self) -> bool:
        return self.future is None or not self.future.done()

    @property
    def lane(self) -> tuple[int, int]:
        return self.priority, self.size // 500


@dataclass(eq=False)
class _Batch:
    """A batch that the batcher has started."""

    items: list[_Item]
    hand_over: Callable[[], None]
    outcome: asyncio.Future[list[int | Exception]]
    again: bool
    handed_over: bool = False


class _Run:
    """Does to one batcher whatever may be done to it, and compares what it does with what it promises."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = VirtualLoop()
        self.items: list[_Item] = []
        self.batches: list[_Batch] = []
        self.patient: list[asyncio.Task[None]] = []
        self.closing: asyncio.Task[None] | None = None
        self.broken: list[str] = []
        # What others have got, at most, beyond what the steady caller has got since it waits.
        self.lead: collections.Counter[str] = collections.Counter()
        choose = self.random.choice
        self.is_uniform = choose([False, True])
        self.config = BatchingConfig(
            max_batch_size=choose([1, 2, 3]), max_queue=choose([1, 3, 12]), max_delay_ms=choose([0, 0, 20])
        )
        self.concurrency = choose([1, 2])
        self.patient_queue = min(choose([1, 2, 12]), self.config.max_queue)
        self.batcher = self.loop.run_until_complete(self._make())

    async def _make(self) -> DynamicBatcher[int, int]:
        return DynamicBatcher(
            self._run_batch, self.config, concurrency=self.concurrency, patient_queue=self.patient_queue
        )

    def _run_batch(
        self, numbers: Sequence[int], hand_over: Callable[[], None]
    ) -> asyncio.Future[list[int | Exception]]:
        items = [self.items[number] for number in numbers]
        self._expect(1 <= len(items) <= self.config.max_batch_size, "too large a batch")
        self._expect(len({item.lane for item in items}) == 1, "unlike items together")
        again = items[0].runs == len(items) == 1  # only alone, where a batch has failed as a whole
        for item in items:
            self._expect(item.is_alive, f"{item.number} ran though it was cancelled")
            self._expect(item.deadline > self.loop.time(), f"{item.number} ran though it was expired")
            self._expect(item.runs == again, f"{item.number} ran too often")
            item.runs += 1
        if not again:
            busy = [batch for batch in self.batches if not (batch.again or batch.handed_over)]
            self._expect(len(busy) < self.concurrency, "too many batches at a time")
            self._check_order(items)
        batch = _Batch(items, hand_over, self.loop.create_future(), again)
        self.batches.append(batch)
        return batch.outcome

    def _check_order(self, taken: list[_Item]) -> None:
        if self.config.max_delay_ms == 0:
            highest = max((item.priority for item in self.waiting), default=-1)
            self._expect(taken[0].priority >= highest, "a higher priority waits")
        if not self.is_uniform:
            return
        # Of two who have something in the queue, one gets two more than the other at most (SFQ's theorem 1), whatever
        # the first has given up meanwhile.
        for item in taken:
            if item.caller == _STEADY:
                self.lead -= collections.Counter(dict.fromkeys(self.lead, 1))  # and drops what is not above 0
            elif any(waiting.caller == _STEADY for waiting in self.waiting):
                self.lead[item.caller] += 1
                self._expect(self.lead[item.caller] <= 2, f"{item.caller} starves others")
            else:
                self.lead.clear()

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.broken.append(problem)

    @property
    def waiting(self) -> list[_Item]:
        return [item for item in self.items if not item.runs and item.is_alive]

    def submit(self, *, deadline: float | None = None) -> None:
        choose, now = self.random.choice, self.loop.time()
        item = _Item(len(self.items), choose(["a", "b", _STEADY]), now)
        if item.caller != _STEADY:
            item.deadline = choose([_NEVER, now + 0.005, now]) if deadline is None else deadline
        if not self.is_uniform:
            item.priority, item.size = choose([0, 0, 0, 1, -1]), choose([100, 101, 1000, 1001])
        if not any(waiting.caller == _STEADY for waiting in self.waiting):
            self.lead.clear()
        self.items.append(item)  # the batcher may run it at once
        try:
            item.future = self.batcher.submit(
                item.number,
                size=item.size,
                deadline=item.deadline,
                priority=item.priority,
                caller=item.caller,
            )
        except LonghandError:
            self.items.pop()
            raise

    def step_submit(self) -> None:
        is_full = self.batcher.waiting >= self.config.max_queue  # which `check` compares
        is_closing = self.batcher._closing
        try:
            self.submit()
        except OverloadedError as error:
            self._expect(is_full and bool(error.retry_after_ms), "refused although there was room")
        except ShuttingDownError:
            self._expect(is_closing, "refused although it does not close")
        else:
            self._expect(not (is_full or is_closing), "accepted although it was full")

    def step_ask_for_room(self) -> None:
        stays = self.random.random() < 0.8

        async def ask() -> None:
            await self.batcher.room(priority=self.random.choice([0, 0, 1]), caller=self.random.choice("ab"))
            if stays:
                try:
                    self.submit(deadline=_NEVER)
                except ShuttingDownError:
                    self._expect(self.closing is not None, "refused although it does not close")
                except OverloadedError:
                    self._expect(False, "refused in the step in which it had room")

        self.patient.append(self.loop.create_task(ask()))

    def step_cancel(self) -> None:
        for _ in range(self.random.choice([1, 1, 4])):
            alive = [item.future for item in self.items if item.is_alive and item.caller != _STEADY]
            if alive and (future := self.random.choice(alive)) is not None:
                future.cancel()

    def step_stop_asking(self) -> None:
        if self.patient:
            self.random.choice(self.patient).cancel()

    def step_end_batch(self) -> None:
        if not self.batches:
            return
        batch = self.batches.pop(self.random.randrange(len(self.batches)))
        results: list[int | Exception] = [item.number for item in batch.items]
        match self.random.randrange(6):
            case 0:
                batch.outcome.set_exception(ValueError("all"))
            case 1:
                batch.outcome.set_result([ValueError("one"), *results[1:]])
            case 2:
                batch.outcome.set_result(results * 2)
            case _:
                batch.outcome.set_result(results)

    def step_hand_over(self) -> None:
        if self.batches:
            batch = self.random.choice(self.batches)
            batch.handed_over = True
            batch.hand_over()

    def step_close(self) -> None:
        if self.closing is None and self.random.random() < 0.05:
            self.closing = self.loop.create_task(self.batcher.close())

    def go_on(self) -> None:
        """Something happens, or several things in one step of the loop, or nothing for some time."""
        if self.random.random() < 0.1:
            self.loop.advance(self.random.choice([0.001, 0.01, 0.03]))
        else:
            self.loop.run_until_complete(self._step())
            self.loop.settle()
        self.check()

    async def _step(self) -> None:
        names = [name for name in dir(self) if name.startswith("step_")]
        for _ in range(self.random.choice([1, 1, 1, 2, 4])):
            getattr(self, self.random.choice([*names, *["step_submit"] * 4]))()

    def check(self) -> None:
        batcher, waiting, now = self.batcher, self.waiting, self.loop.time()
        assert not self.broken, self.broken
        assert batcher.waiting == len(waiting)
        assert batcher._promised == 0
        self._check_answers()
        self.patient = [task for task in self.patient if not task.done()]
        if self.patient:
            assert self.closing is None
            assert len(waiting) >= self.patient_queue, "somebody waits for room although there is some"
        lanes = collections.defaultdict(list)
        for item in waiting:
            lanes[item.lane].append(item)
        for items in lanes.values() if batcher._free else ():
            due = min(item.arrived for item in items) + self.config.max_delay_ms / 1000
            assert self.closing is None, "nothing runs although it is to end"
            assert len(items) < self.config.max_batch_size, "nothing runs although there is a full batch"
            assert due > now, "nothing runs although the delay is over"
        lanes_of_all: list[Any] = [*batcher._lanes.values(), batcher._room_waiters]
        for lane in lanes_of_all:
            assert lane.live == sum(not entry.future.done() for entry in lane.heap)

    def _check_answers(self) -> None:
        for item in self.items:
            future = item.future
            assert future is not None
            if not future.done():
                continue
            error = None if future.cancelled() else future.exception()
            if not (future.cancelled() or error):
                assert future.result() == item.number
            if isinstance(error, ValueError | RuntimeError):
                assert item.runs

    def finish(self) -> None:
        if self.closing is None:
            self.closing = self.loop.create_task(self.batcher.close())
        self.loop.settle()
        while self.batches:
            batch = self.batches.pop()
            batch.outcome.set_result([item.number for item in batch.items])
            self.loop.settle()
        self.check()
        assert self.closing.done()
        assert not any(item.is_alive for item in self.items)
        assert not self.patient
        batcher = self.batcher
        assert batcher.waiting == batcher.running == 0
        assert batcher._free == self.concurrency
        assert not batcher._clock._last_finish
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


def test_whatever_befalls_a_batcher_it_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_SWEEP_AT", 1)
    for seed in range(200):
        run = _Run(seed)
        try:
            for _ in range(60):
                run.go_on()
            run.finish()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
