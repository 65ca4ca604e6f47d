"""Puts load on a server and measures each line's latency.

A closed loop keeps a fixed number of lines on their way: the next one leaves when one comes back, so a slow
server slows its own load down. An open loop sends at random times that do not wait for the server (a Poisson
process); its latencies count from the time at which a line should have left, so that an overloaded server cannot
hide the lines that queued (Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from longhand_client.aio import AsyncRecognizerClient
from longhand_client.errors import LonghandError
from longhand_client.options import RecognitionOptions
from longhand_client.results import Outcome, Timings

# More lines than this on their way would measure the client's memory; further ones are counted as not sent.
MOST_ON_THE_WAY = 20_000
STAGES = ("decode_image_ms", "queue_ms", "infer_ms", "beam_ms", "total_ms", "batch_size")


@dataclass(frozen=True)
class Load:
    """What to put on a server.

    Attributes:
        address: where it is.
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
        stages: sums of the server's own times over the lines read.
        cpu_s: CPU time that this process took meanwhile.
    """

    duration_s: float = 0.0
    completed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
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
        self._cpu = [0.0, 0.0]
        loop = asyncio.get_running_loop()
        for place, moment in enumerate((load.warm_up_s, load.warm_up_s + load.duration_s)):
            loop.call_later(moment, self._note_cpu, place)

    @property
    def over(self) -> bool:
        return time.perf_counter() >= self.end

    def read(self, started: float, timings: Timings) -> None:
        now = time.perf_counter()
        if self.begin <= now < self.end:
            self.sample.completed += 1
        if self.begin <= (started if self._open_loop else now) < self.end:
            self.sample.latencies_ms.append(1000 * (now - started))
            stages = self.sample.stages
            for name in STAGES:
                stages[name] += getattr(timings, name)

    def failed(self, started: float, error: LonghandError | None) -> None:
        if self.begin <= (started if self._open_loop else time.perf_counter()) < self.end:
            self.sample.errors[error.code if error is not None else "UNKNOWN"] += 1

    def finish(self) -> Sample:
        self.sample.cpu_s = self._cpu[1] - self._cpu[0]
        return self.sample

    def _note_cpu(self, place: int) -> None:
        self._cpu[place] = time.process_time()


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
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_measure(load, images))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    # The less the client costs, the less it measures itself.
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _measure(load: Load, images: Sequence[bytes]) -> Sample:
    chosen = _choices(images, load.seed)
    async with AsyncRecognizerClient(load.address, timeout_s=load.timeout_s, retries=0) as client:
        await client.model()  # a server that is not there ends the run here
        recorder = _Recorder(load)
        if load.call == "stream":
            await _stream(client, load, chosen, recorder)
        elif load.rate > 0:
            await _open_loop(client, load, chosen, recorder)
        else:
            workers = (_closed_loop(client, load, chosen, recorder) for _ in range(load.concurrency))
            await asyncio.gather(*workers)
        return recorder.finish()


def _choices(images: Sequence[bytes], seed: int) -> Iterator[bytes]:
    generator = random.Random(seed)
    while True:
        yield images[generator.randrange(len(images))]


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


async def _call(
    client: AsyncRecognizerClient, load: Load, chosen: Iterator[bytes], recorder: _Recorder, started: float
) -> None:
    try:
        if load.call == "unary":
            transcription = await client.recognize(next(chosen), load.options)
            recorder.read(started, transcription.timings)
            return
        images = list(itertools.islice(chosen, load.batch_size))
        for outcome in await client.recognize_batch(images, load.options):
            _record(recorder, outcome, started)
    except LonghandError as error:
        for _ in range(load.batch_size if load.call == "batch" else 1):
            recorder.failed(started, error)


def _record(recorder: _Recorder, outcome: Outcome, started: float) -> None:
    if outcome.transcription is not None:
        recorder.read(started, outcome.transcription.timings)
    else:
        recorder.failed(started, outcome.error)


async def _closed_loop(
    client: AsyncRecognizerClient, load: Load, chosen: Iterator[bytes], recorder: _Recorder
) -> None:
    while not recorder.over:
        await _call(client, load, chosen, recorder, time.perf_counter())


async def _open_loop(
    client: AsyncRecognizerClient, load: Load, chosen: Iterator[bytes], recorder: _Recorder
) -> None:
    first = time.perf_counter()
    lines = load.batch_size if load.call == "batch" else 1
    running: set[asyncio.Task[None]] = set()
    for moment in arrivals(load.rate / lines, load.seed):
        due = first + moment
        if due >= recorder.end:
            break
        await asyncio.sleep(due - time.perf_counter())
        if len(running) * lines >= MOST_ON_THE_WAY:
            recorder.failed(due, LonghandError("too many lines on their way", code="NOT_SENT"))
            continue
        task = asyncio.create_task(_call(client, load, chosen, recorder, due))
        running.add(task)
        task.add_done_callback(running.discard)
    # A line that left in time counts although it comes back late.
    if running:
        await asyncio.wait(running)


async def _stream(
    client: AsyncRecognizerClient, load: Load, chosen: Iterator[bytes], recorder: _Recorder
) -> None:
    started: dict[int, float] = {}

    async def images() -> AsyncIterator[bytes]:
        first = time.perf_counter()
        for index, moment in enumerate(arrivals(load.rate or 1.0, load.seed)):
            if load.rate > 0:
                started[index] = first + moment
                if started[index] >= recorder.end:
                    return
                await asyncio.sleep(started[index] - time.perf_counter())
            else:
                if recorder.over:
                    return
                started[index] = time.perf_counter()
            yield next(chosen)

    look_ahead = load.concurrency if load.rate <= 0 else MOST_ON_THE_WAY
    outcomes = client.recognize_stream(images(), load.options, ordered=False, look_ahead=look_ahead)
    async for outcome in outcomes:
        _record(recorder, outcome, started.pop(outcome.index))
