"""A dynamic batcher: items in one at a time, run in batches, each answered by its own future.

It knows nothing of images or protobuf. Everything happens on one event loop, so there are no locks, and every
step follows from an event (an item comes, a batch ends, a delay is over): nothing polls.

Order: higher priority first; within a priority start-time fair queueing (P. Goyal, H. Vin, H. Cheng,
"Start-time fair queuing", SIGCOMM 1996). Each caller's items carry virtual start times that advance by their
size, so a caller with one item waits for about one item of every other caller, whatever those have queued. The place
of an item that is given up before it runs goes to its caller's next one.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from longhand_server.config import BatchingConfig
from longhand_server.errors import DeadlineExceededError, OverloadedError, ShuttingDownError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
WaiterT = TypeVar("WaiterT", bound="_Waiter")

# Sizes of one bucket differ by at most this factor, which keeps padding below 1 - 1 / 1.25 = 20 %.
_BUCKET_RATIO = 1.25
_MIN_RETRY_MS, _MAX_RETRY_MS = 50, 10_000
# Share of the newest measurement in the running mean of seconds per item.
_SMOOTHING = 0.1
# A heap with this many cancelled entries, and more of them than live ones, is swept.
_SWEEP_AT = 64
# Callers remembered before the idle ones are forgotten for the first time.
_PRUNE_AT = 256

# Runs a batch. Returns one result, or the exception that befell it, for each item. Calling the second
# argument says that the next batch may start although this one is not finished (its rest runs elsewhere).
BatchFunction = Callable[[Sequence[ItemT], Callable[[], None]], Awaitable[Sequence[ResultT | Exception]]]


@dataclass(slots=True, eq=False)
class _Waiter:
    """Whoever waits until a future is done, in this order."""

    order: tuple[float, ...]
    future: asyncio.Future[Any]

    def __lt__(self, other: _Waiter) -> bool:
        return self.order < other.order


@dataclass(slots=True, eq=False)
class _Entry(_Waiter, Generic[ItemT]):
    """An item in the queue; it waits for its result."""

    item: ItemT
    size: int
    caller: str
    deadline: float
    arrived: float
    lane: _Lane[_Entry[ItemT]]
    if_cancelled: Callable[[object], None] | None = None


class _Lane(Generic[WaiterT]):
    """Those who wait for the same, first come first."""

    __slots__ = ("_cancelled", "heap")

    def __init__(self) -> None:
        self.heap: list[WaiterT] = []
        # Of those in the heap; too few, or even below zero, while some were cancelled and have not said so yet.
        self._cancelled = 0

    @property
    def live(self) -> int:
        """How many wait."""
        return len(self.heap) - self._cancelled

    def head(self) -> WaiterT | None:
        """The first who waits; cancelled ones before are thrown away."""
        while self.heap:
            if not self.heap[0].future.done():
                return self.heap[0]
            heapq.heappop(self.heap)
            self._cancelled -= 1
        return None

    def count_cancelled(self) -> None:
        """One has been cancelled; they are thrown away once they outnumber those who wait."""
        self._cancelled += 1
        if self._cancelled > _SWEEP_AT and 2 * self._cancelled > len(self.heap):
            before = len(self.heap)
            self.heap = [waiter for waiter in self.heap if not waiter.future.done()]
            heapq.heapify(self.heap)
            self._cancelled -= before - len(self.heap)


class _FairClock:
    """Virtual start times: who has had little lately comes before who has had much."""

    def __init__(self) -> None:
        self._now = 0.0
        self._last_finish: dict[str, float] = {}
        # Start times and sizes, a heap for each caller.
        self._given_up: dict[str, list[tuple[float, float]]] = {}
        self._prune_at = _PRUNE_AT

    def start(self, caller: str, size: float) -> float:
        """When the caller's next piece of work, of that size, starts."""
        places = self._given_up.get(caller)
        while places:
            start, freed = heapq.heappop(places)
            if start >= self._now:  # nobody saves places up
                self._last_finish[caller] += size - freed
                return start
        start = max(self._now, self._last_finish.get(caller, 0.0))
        self._last_finish[caller] = start + size
        if len(self._last_finish) >= self._prune_at:
            # Whoever's last work lies in the virtual past starts afresh anyway.
            self._last_finish = {name: at for name, at in self._last_finish.items() if at > self._now}
            self._given_up = {
                name: places for name, places in self._given_up.items() if name in self._last_finish
            }
            self._prune_at = 2 * len(self._last_finish) + _PRUNE_AT
        return start

    def give_up(self, caller: str, start: float, size: float) -> None:
        """A piece of the caller's work that was to start then will not be done."""
        if caller in self._last_finish:
            heapq.heappush(self._given_up.setdefault(caller, []), (start, size))

    def advance(self, start: float) -> None:
        """A piece of work that was to start then has started."""
        self._now = max(self._now, start)

    def forget(self) -> None:
        """Nothing waits any more."""
        self._last_finish.clear()
        self._given_up.clear()


class DynamicBatcher(Generic[ItemT, ResultT]):
    """Collects items into batches and runs a bounded number of batches at a time.

    Args:
        run: Runs a batch; see :data:`BatchFunction`. If it raises on a batch of several, every item is run
            again alone, so that only the one at fault fails.
        config: Batch size, delay and queue bound.
        concurrency: Batches that may run at the same time.
        patient_queue: Items in the queue at which those who would rather wait than be refused (:meth:`room`) begin
            to wait, so that the rest stays free for others; ``config.max_queue`` where it is not given.
    """

    def __init__(
        self,
        run: BatchFunction[ItemT, ResultT],
        config: BatchingConfig,
        *,
        concurrency: int = 1,
        patient_queue: int | None = None,
    ) -> None:
        self._run_batch = run
        self._config = config
        self._concurrency = concurrency
        self._loop = asyncio.get_running_loop()
        self._free = concurrency
        self._lanes: dict[tuple[int, int], _Lane[_Entry[ItemT]]] = {}
        self._waiting = 0
        self._sequence = itertools.count()
        self._clock = _FairClock()
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Future[Any]] = set()
        self._seconds_per_item = 0.0
        self._patient_queue = config.max_queue if patient_queue is None else patient_queue
        self._promised = 0
        self._room_clock = _FairClock()
        self._room_waiters: _Lane[_Waiter] = _Lane()
        self._closing = False

    @property
    def waiting(self) -> int:
        """Items in the queue, those that run not counted."""
        return self._waiting

    @property
    def running(self) -> int:
        """Batches that run."""
        return len(self._running)

    def submit(
        self,
        item: ItemT,
        *,
        size: int = 1,
        deadline: float = math.inf,
        priority: int = 0,
        caller: str = "",
    ) -> asyncio.Future[ResultT]:
        """Queues an item.

        Args:
            item: What to run.
            size: Its extent (an image's width), at least 1: items of like size share a batch.
            deadline: Event loop time after which it must not be run any more, in seconds.
            priority: Larger goes first.
            caller: Who asks, for fairness.

        Returns:
            A future for the item's result. Cancelling it takes the item out of the queue.

        Raises:
            OverloadedError: The queue is full.
            ShuttingDownError: The batcher is closing.
        """
        if self._closing:
            raise ShuttingDownError("the server is stopping; ask another one")
        self.check_room()
        start = self._clock.start(caller, size)
        key = (-priority, int(math.log(size, _BUCKET_RATIO)))
        lane = self._lanes.setdefault(key, _Lane())
        future: asyncio.Future[ResultT] = self._loop.create_future()
        order = (start, next(self._sequence))
        entry = _Entry(order, future, item, size, caller, deadline, self._loop.time(), lane)
        heapq.heappush(lane.heap, entry)
        self._waiting += 1
        entry.if_cancelled = lambda _: self._drop(entry)
        future.add_done_callback(entry.if_cancelled)
        self._dispatch()
        return future

    def check_room(self) -> None:
        """Raises OverloadedError where the queue is full."""
        if self._waiting >= self._config.max_queue:
            raise OverloadedError(
                f"{self._waiting} images wait already, at most {self._config.max_queue} may",
                retry_after_ms=self.retry_after_ms(),
                metadata={"max_queue": str(self._config.max_queue)},
            )

    async def room(self, *, priority: int = 0, caller: str = "") -> None:
        """Returns once the queue has room; the next submit in the same step is accepted.

        Who waits for room is let in by priority and by fair turns as well.
        """
        if self._closing or self._has_room():
            return  # where it is closing, submit says so
        order = (-priority, self._room_clock.start(caller, 1), next(self._sequence))
        while not (self._closing or self._has_room()):
            waiter = _Waiter(order, self._loop.create_future())
            # Whoever was woken but came too late (a single call took the place) keeps its turn.
            heapq.heappush(self._room_waiters.heap, waiter)
            try:
                await waiter.future
            except asyncio.CancelledError:
                if waiter.future.cancelled():
                    self._room_waiters.count_cancelled()
                else:
                    self._promised -= 1
                self._room_clock.give_up(caller, order[1], 1)
                self._wake_one()
                raise
            self._promised -= 1
        # After this step: whoever has been let in may turn out to have nothing to submit any more.
        self._loop.call_soon(self._wake_one)

    def _has_room(self) -> bool:
        """Whether one more of the patient may come in, places promised to those just woken counted as taken."""
        return self._waiting + self._promised < self._patient_queue

    def retry_after_ms(self) -> int:
        """Milliseconds in which half of the queue will be gone, by the pace of late."""
        seconds = self._waiting * self._seconds_per_item / self._concurrency / 2
        return max(_MIN_RETRY_MS, min(int(seconds * 1000), _MAX_RETRY_MS))

    async def close(self) -> None:
        """Accepts nothing more and returns once everything accepted is answered."""
        self._closing = True
        while (waiter := self._room_waiters.head()) is not None:
            self._let_in(waiter)
        self._dispatch()
        while self._running:
            await asyncio.wait(self._running)

    def _wake_one(self) -> None:
        waiter = self._room_waiters.head()
        if waiter is None:
            # Nobody waits: whoever gave up need not pay for turns that were never taken.
            self._room_clock.forget()
        elif self._has_room():
            self._room_clock.advance(waiter.order[1])
            self._let_in(waiter)

    def _let_in(self, waiter: _Waiter) -> None:
        """Lets the first of those in who wait for room."""
        heapq.heappop(self._room_waiters.heap)
        self._promised += 1
        waiter.future.set_result(None)

    def _drop(self, entry: _Entry[ItemT]) -> None:
        """Cancelled by the caller while it waited."""
        self._clock.give_up(entry.caller, entry.order[0], entry.size)
        del entry.item  # it may be large, and the entry stays in its lane until somebody looks there
        entry.lane.count_cancelled()
        self._mark_taken(entry)

    def _mark_taken(self, entry: _Entry[ItemT]) -> None:
        if entry.if_cancelled is not None:
            entry.future.remove_done_callback(entry.if_cancelled)
            entry.if_cancelled = None
        self._waiting -= 1
        if self._waiting == 0:
            self._clock.forget()
        self._wake_one()

    def _dispatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._free > 0 and self._waiting:
            batch, ready_at = self._next_batch()
            if not batch:
                if ready_at < math.inf:
                    self._timer = self._loop.call_at(ready_at, self._dispatch)
                return
            self._start(batch)

    def _next_batch(self) -> tuple[list[_Entry[ItemT]], float]:
        """Takes the batch that is due, or says when the first one will be (inf: nothing waits)."""
        ready_at = math.inf
        delay = 0.0 if self._closing else self._config.max_delay_ms / 1000
        now = self._loop.time()
        heads = []
        for key, lane in list(self._lanes.items()):
            head = lane.head()
            if head is None:
                del self._lanes[key]
            else:
                heads.append((key[0], head.order, lane))
        for _, _, lane in sorted(heads, key=lambda entry: entry[:2]):
            if delay > 0 and lane.live < self._config.max_batch_size:
                due = min(entry.arrived for entry in lane.heap if not entry.future.done()) + delay
                if due > now:
                    ready_at = min(ready_at, due)
                    continue
            batch = self._take(lane, now)
            if batch:
                return batch, now
        return [], ready_at

    def _take(self, lane: _Lane[_Entry[ItemT]], now: float) -> list[_Entry[ItemT]]:
        """Takes up to a full batch from a lane; expired entries fail here and never run."""
        batch: list[_Entry[ItemT]] = []
        while len(batch) < self._config.max_batch_size and (entry := lane.head()) is not None:
            heapq.heappop(lane.heap)
            expired = entry.deadline <= now
            if expired:
                self._clock.give_up(entry.caller, entry.order[0], entry.size)
            else:
                self._clock.advance(entry.order[0])
            self._mark_taken(entry)
            if expired:
                _fail_expired(entry, now)
            else:
                batch.append(entry)
        return batch

    def _start(self, batch: list[_Entry[ItemT]]) -> None:
        self._free -= 1
        # The number and not the batch: whoever fails keeps this function, and a future of the batch the failure.
        started, count = self._loop.time(), len(batch)
        handed_over = False

        def hand_over() -> None:
            nonlocal handed_over
            if not handed_over:
                handed_over = True
                elapsed = (self._loop.time() - started) / count
                self._seconds_per_item += _SMOOTHING * (elapsed - self._seconds_per_item)
                self._free += 1
                self._dispatch()

        running = asyncio.ensure_future(self._run_batch([entry.item for entry in batch], hand_over))
        self._running.add(running)
        running.add_done_callback(lambda done: self._end(batch, done, hand_over))

    def _end(
        self,
        batch: list[_Entry[ItemT]],
        done: asyncio.Future[Sequence[ResultT | Exception]],
        hand_over: Callable[[], None],
    ) -> None:
        self._running.discard(done)
        if done.cancelled():
            for entry in batch:
                entry.future.cancel()
        elif (error := _error_of(done, len(batch))) is None:
            for entry, result in zip(batch, done.result(), strict=True):
                _settle(entry.future, result)
        elif len(batch) == 1:
            _settle(batch[0].future, error)
        else:
            again = self._loop.create_task(self._run_singly(batch, hand_over))
            self._running.add(again)
            again.add_done_callback(self._running.discard)
            return
        hand_over()

    async def _run_singly(self, batch: list[_Entry[ItemT]], hand_over: Callable[[], None]) -> None:
        try:
            for entry in batch:
                if entry.deadline <= (now := self._loop.time()):
                    _fail_expired(entry, now)
                if not entry.future.done():
                    alone = asyncio.ensure_future(self._run_batch([entry.item], hand_over))
                    await asyncio.wait([alone])
                    _settle(entry.future, _error_of(alone, 1) or alone.result()[0])
        finally:
            for entry in batch:
                entry.future.cancel()  # only where this was cut short
            hand_over()


def _error_of(done: asyncio.Future[Sequence[Any]], count: int) -> Exception | None:
    """What went wrong with a batch of that many items as a whole, if anything."""
    error = done.exception()
    if error is None and len(done.result()) != count:
        return RuntimeError(f"{count} items gave {len(done.result())} results")
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))


def _fail_expired(entry: _Entry[Any], now: float) -> None:
    waited_ms = (now - entry.arrived) * 1000
    _settle(entry.future, DeadlineExceededError(f"the deadline passed after {waited_ms:.0f} ms in the queue"))


def _settle(future: asyncio.Future[ResultT], result: ResultT | Exception) -> None:
    if future.done():  # cancelled while it ran
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
