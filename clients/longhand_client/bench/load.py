"""Puts load on a server and measures each line's latency.

A closed loop keeps a fixed number of lines on their way: the next one leaves when one comes back, so a slow
server slows its own load down. An open loop sends at random times that do not wait for the server (a Poisson
process); its latencies count from the time at which a line should have left, so that an overloaded server cannot
hide the lines that queued (Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand_client.bench.wire import Wire, WireStream
from longhand_client.connection import Connection, Tls
from longhand_client.errors import LonghandError
from longhand_client.options import RecognitionOptions

# More lines than this on their way would measure the client's memory; further ones are counted as not sent.
MOST_ON_THE_WAY = 20_000
STAGES = ("decode_image_ms", "queue_ms", "infer_ms", "beam_ms", "total_ms", "batch_size")


@dataclass(frozen=True)
class Load:
    """What to put on a server.

    Attributes:
        address: where it is.
        tls: how to reach it encrypted; None = plain text.
        token: sent with every call; None = nothing.
        call: one call a line, one call a batch, or one stream.
        concurrency: lines (batches) on their way in a closed loop; 0 = open loop.
        rate: lines a second in an open loop.
        batch_size: lines in a batch.
        duration_s: how long to measure.
        warm_up_s: how long to run before that.
        timeout_s: seconds that a call may take.
        seed: of the arrival times and the choice of images.
        options: how to read.
    """

    address: str
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    call: Literal["unary", "batch", "stream"] = "unary"
    concurrency: int = 1
    rate: float = 0.0
    batch_size: int = 16
    duration_s: float = 10.0
    warm_up_s: float = 2.0
    timeout_s: float = 30.0
    seed: int = 0
    options: RecognitionOptions | None = None


@dataclass
class Sample:
    """What was measured.

    Attributes:
        duration_s: how long.
        completed: lines that came back, read, in that time.
        latencies_ms: of each line that was read.
        errors: how many lines failed, by code.
        messages: what the first of them said, by code.
        stages: sums of the server's own times over the lines read.
        cpu_s: CPU time that this process took meanwhile.
    """

    duration_s: float = 0.0
    completed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    cpu_s: float = 0.0


class _Recorder:
    """Takes the lines that fall into the measuring time.

    In a closed loop these are the lines that come back in it; in an open loop those that are due in it, however
    late they come back.
    """

    def __init__(self, load: Load) -> None:
        self.begin = time.perf_counter() + load.warm_up_s
        self.end = self.begin + load.duration_s
        self.sample = Sample(duration_s=load.duration_s)
        self._open_loop = load.rate > 0
        self._cpu: list[float] = []
        loop = asyncio.get_running_loop()
        for moment in (load.warm_up_s, load.warm_up_s + load.duration_s):
            loop.call_later(moment, self._note_cpu)

    @property
    def over(self) -> bool:
        return time.perf_counter() >= self.end

    def record(self, started: float, outcome: pb.Timings | LonghandError) -> None:
        """One line has come back, or failed."""
        if isinstance(outcome, LonghandError):
            self.failed(started, outcome)
        else:
            self._read(started, outcome)

    def failed(self, started: float, error: LonghandError, lines: int = 1) -> None:
        """So many lines that left together have failed."""
        if self._counts(started, time.perf_counter()):
            self.sample.errors[error.code] += lines
            self.sample.messages.setdefault(error.code, error.message)

    def _read(self, started: float, timings: pb.Timings) -> None:
        now = time.perf_counter()
        if self.begin <= now < self.end:
            self.sample.completed += 1
        if self._counts(started, now):
            self.sample.latencies_ms.append(1000 * (now - started))
            stages = self.sample.stages
            for name in STAGES:
                stages[name] += getattr(timings, name)

    def _counts(self, started: float, now: float) -> bool:
        return self.begin <= (started if self._open_loop else now) < self.end

    def finish(self) -> Sample:
        while len(self._cpu) < 2:  # the last line was back before the end
            self._note_cpu()
        self.sample.cpu_s = self._cpu[1] - self._cpu[0]
        return self.sample

    def _note_cpu(self) -> None:
        self._cpu.append(time.process_time())


def measure(load: Load, images: Sequence[bytes]) -> Sample:
    """Runs one load in this process.

    Args:
        load: what to do.
        images: image files, used in random order.

    Returns:
        What was measured after the warm-up.

    Raises:
        LonghandError: the server does not answer at all.
    """
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(_measure(load, images))


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop: uvloop's, where it is installed; the less the client costs, the better."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _measure(load: Load, images: Sequence[bytes]) -> Sample:
    wire = Wire(
        Connection(address=load.address, tls=load.tls, token=load.token, retries=0),
        images,
        load.options,
        batch_size=load.batch_size,
        timeout_s=load.timeout_s,
        seed=load.seed,
    )
    async with wire:
        await wire.check()  # a server that is not there ends the run here
        recorder = _Recorder(load)
        if load.call == "stream":
            await _stream(wire, load, recorder)
        elif load.rate > 0:
            await _open_loop(wire, load, recorder)
        else:
            workers = (_closed_loop(wire, load, recorder) for _ in range(load.concurrency))
            await asyncio.gather(*workers)
        return recorder.finish()


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """The times of a Poisson process, in seconds from its start.

    Args:
        rate: events a second.
        seed: of the random numbers.

    Yields:
        Rising times, without end.
    """
    generator = random.Random(seed)
    moment = 0.0
    while True:
        moment += generator.expovariate(rate)
        yield moment


async def due_times(rate: float, seed: int, end: float) -> AsyncIterator[float]:
    """Waits for each arrival and gives the time at which it was due (`time.perf_counter`), until `end`.

    An event loop's timers know milliseconds only. Nothing goes out early: what is due within one of them goes out
    together, late by up to that much, which its latency then holds.
    """
    first = time.perf_counter()
    for moment in arrivals(rate, seed):
        due = first + moment
        if due >= end:
            return
        delay = due - time.perf_counter()
        if delay <= 0:
            await asyncio.sleep(0)  # answers get their turn, too
        while delay > 0:
            await asyncio.sleep(math.ceil(1000 * delay) / 1000)
            delay = due - time.perf_counter()
        yield due


async def _call(wire: Wire, load: Load, recorder: _Recorder, started: float) -> None:
    try:
        if load.call == "unary":
            recorder.record(started, await wire.single())
            return
        for outcome in await wire.batch():
            recorder.record(started, outcome)
    except LonghandError as error:
        recorder.failed(started, error, load.batch_size if load.call == "batch" else 1)


async def _closed_loop(wire: Wire, load: Load, recorder: _Recorder) -> None:
    while not recorder.over:
        await _call(wire, load, recorder, time.perf_counter())


async def _open_loop(wire: Wire, load: Load, recorder: _Recorder) -> None:
    lines = load.batch_size if load.call == "batch" else 1
    running: set[asyncio.Task[None]] = set()
    too_many = LonghandError(f"{MOST_ON_THE_WAY} lines were on their way already", code="NOT_SENT")
    async for due in due_times(load.rate / lines, load.seed, recorder.end):
        if len(running) * lines >= MOST_ON_THE_WAY:
            recorder.failed(due, too_many, lines)
            await asyncio.sleep(0)
            continue
        task = asyncio.create_task(_call(wire, load, recorder, due))
        running.add(task)
        task.add_done_callback(running.discard)
    # A line that left in time counts although it comes back late.
    if running:
        await asyncio.wait(running)


async def _stream(wire: Wire, load: Load, recorder: _Recorder) -> None:
    stream = wire.stream(load.warm_up_s + load.duration_s + load.timeout_s)
    started: dict[int, float] = {}
    slots = asyncio.Semaphore(load.concurrency if load.rate <= 0 else MOST_ON_THE_WAY)

    async def receive() -> None:
        async for number, outcome in stream.answers():
            slots.release()
            recorder.record(started.pop(number), outcome)

    sender = asyncio.create_task(_send(stream, load, recorder, started, slots))
    receiver = asyncio.create_task(receive())
    try:
        await receiver
        await sender
    finally:
        stream.cancel()
        sender.cancel()


async def _send(
    stream: WireStream,
    load: Load,
    recorder: _Recorder,
    started: dict[int, float],
    slots: asyncio.Semaphore,
) -> None:
    times = due_times(load.rate, load.seed, recorder.end) if load.rate > 0 else _at_once(recorder)
    number = 0
    try:
        await stream.open()
        async for due in times:
            await slots.acquire()
            started[number] = due if load.rate > 0 else time.perf_counter()
            await stream.send(number)
            number += 1
        await stream.end()
    except (grpc.RpcError, asyncio.InvalidStateError):
        return  # the receiver learns why the stream ended


async def _at_once(recorder: _Recorder) -> AsyncIterator[float]:
    while not recorder.over:
        yield time.perf_counter()
