"""What one model has done since it was loaded, as counts and times that only rise."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from longhand_server.recognizer import Transcription


@dataclass
class Duration:
    """How often something happened, and how long it took in all.

    Attributes:
        count: Times that it happened.
        ns: Nanoseconds in all.
    """

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Counts one more."""
        self.count += 1
        self.ns += round(seconds * 1e9)


class _Request:
    """One request, as a context manager (contextlib's takes three times as long)."""

    __slots__ = ("_begun", "_statistics")

    def __init__(self, statistics: ModelStatistics) -> None:
        self._statistics = statistics

    def __enter__(self) -> None:
        self._begun = time.perf_counter()
        self._statistics.last_ms = int(time.time() * 1000)

    def __exit__(self, kind: object, *_: object) -> None:
        outcome = self._statistics.success if kind is None else self._statistics.fail
        outcome.add(time.perf_counter() - self._begun)


@dataclass
class ModelStatistics:
    """The counts of one model.

    A request is whatever gets an answer of its own: a call for one image, an item of a batch or a stream, or a
    tensor with many images. Images and batches are counted one by one.

    Attributes:
        images: Images that were read.
        last_ms: When the last request came, milliseconds since 1970; 0 = none came yet.
        success: Requests that were answered.
        fail: Requests that failed.
        queue: Waiting of images that were read.
        decode_image: Decoding their files.
        infer: Running the network on those that were not blank; images of one batch count the whole batch's time.
        beam: Decoding its output into text; likewise.
    """

    images: int = 0
    last_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    decode_image: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    beam: Duration = field(default_factory=Duration)
    _batches: Counter[int] = field(default_factory=Counter)
    _batch_ms: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self) -> _Request:
        """Surrounds a request: an exception inside it counts as its failure."""
        return _Request(self)

    def image_read(self, result: Transcription) -> None:
        """An image was read."""
        self.images += 1
        timings = result.timings
        self.queue.add(timings.queue_ms / 1000)
        self.decode_image.add(timings.decode_image_ms / 1000)
        if timings.batch_size:
            self.infer.add(timings.infer_ms / 1000)
            self.beam.add(timings.beam_ms / 1000)
            self._batch_ms[timings.batch_size] += timings.infer_ms / timings.batch_size

    def batch_started(self, size: int) -> None:
        """The network starts on that many lines. May be called from any thread."""
        with self._lock:
            self._batches[size] += 1

    @property
    def batches(self) -> dict[int, Duration]:
        """Runs of the network by the number of lines in them, with the time of those whose lines were answered.

        The runs of second looks are not counted, but their time is.
        """
        with self._lock:
            started = dict(self._batches)
        return {
            size: Duration(count, round(self._batch_ms.get(size, 0.0) * 1e6))
            for size, count in sorted(started.items())
        }
