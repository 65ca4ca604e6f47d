"""What Prometheus can see of a server. Names, labels and units stand in server/README.md.

Every image touches a dozen counts, so these are plain numbers; prometheus_client, whose own metrics take a lock and a
walk over all buckets for each, sees them only when somebody asks.
"""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from longhand_server.recognizer import Transcription

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGES = ("queue", "decode_image", "infer", "beam")
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
# Counted at 0 from the start, so that the first fault is a rise.
_READING = ("Recognize", "BatchRecognize", "StreamingRecognize", "ModelInfer", "ModelStreamInfer")
_FAULTS = ("INTERNAL", "RECOGNITION_FAILED")


class _Distribution:
    """How often values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds, both ends as Prometheus writes them, and how many values lie at or below them."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, itertools.accumulate(self._counts), strict=True))

    @property
    def sum(self) -> float:
        return self._sum


class _ModelCounts:
    """The counts of one model."""

    def __init__(self) -> None:
        self.outcomes = Counter(dict.fromkeys(_FAULTS, 0))
        self.second_looks = 0
        self.confidence = _Distribution(_SHARES)
        self.stages = tuple(_Distribution(_SECONDS) for _ in _STAGES)
        self.batch_size = _Distribution(_SIZES)
        self.padding = _Distribution(_SHARES)
        self.lock = threading.Lock()


class Metrics(Collector):
    """The metrics of one server, in a registry of their own. For one event loop, except where it says otherwise."""

    def __init__(self) -> None:
        self._calls = Counter({(method, "INTERNAL", reason): 0 for method in _READING for reason in _FAULTS})
        self._call_seconds: defaultdict[str, _Distribution] = defaultdict(lambda: _Distribution(_SECONDS))
        self._in_progress = 0
        self._models: defaultdict[str, _ModelCounts] = defaultdict(_ModelCounts)
        self._queues: dict[object, tuple[str, Callable[[], int]]] = {}
        self._gpus: dict[str, Callable[[], int]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def call_began(self) -> None:
        """A call or stream was opened."""
        self._in_progress += 1

    def call_ended(self, method: str, code: str, reason: str, seconds: float) -> None:
        """A call or stream was closed with that status."""
        self._in_progress -= 1
        self._calls[method, code, reason] += 1
        self._call_seconds[method].observe(seconds)

    def line_read(self, model: str, result: Transcription) -> None:
        """An image was read."""
        counts = self._models[model]
        counts.outcomes[""] += 1
        counts.second_looks += result.second_look
        counts.confidence.observe(result.confidence)
        timings = result.timings
        queue, decode_image, infer, beam = counts.stages
        queue.observe(timings.queue_ms / 1000)
        decode_image.observe(timings.decode_image_ms / 1000)
        infer.observe(timings.infer_ms / 1000)
        beam.observe(timings.beam_ms / 1000)

    def line_failed(self, model: str, reason: str) -> None:
        """An image was not read."""
        self._models[model].outcomes[reason] += 1

    def batch_started(self, model: str, widths: Sequence[int]) -> None:
        """The network starts on lines of these widths in pixels. May be called from any thread."""
        counts = self._models[model]
        with counts.lock:
            counts.batch_size.observe(len(widths))
            counts.padding.observe(1 - sum(widths) / (len(widths) * max(widths)))

    def watch_gpu(self, device: str, used: Callable[[], int]) -> None:
        """Lets a GPU's memory be asked for, in bytes, when Prometheus asks."""
        self._gpus[device] = used

    def watch_queue(self, owner: object, model: str, waiting: Callable[[], int]) -> None:
        """Lets the length of a queue be asked for when Prometheus asks; all queues of a model count together."""
        self._queues[owner] = model, waiting
        self._models[model]  # its faults are counted from 0 on

    def unwatch_queue(self, owner: object) -> None:
        """The owner's queue is no more."""
        self._queues.pop(owner, None)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for, from a thread of its own."""
        yield from self._collect_calls()
        yield from self._collect_models(dict(self._models))
        queued = GaugeMetricFamily(
            "longhand_queue_images", "Images that wait for a worker.", labels=["model"]
        )
        waiting: Counter[str] = Counter()
        for model, count in list(self._queues.values()):
            waiting[model] += count()
        for model, images in waiting.items():
            queued.add_metric([model], images)
        yield queued
        gpu = GaugeMetricFamily(
            "longhand_gpu_memory_bytes", "Memory that PyTorch holds on a device.", labels=["device"]
        )
        for device, used in list(self._gpus.items()):
            gpu.add_metric([device], used())
        yield gpu

    def _collect_calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("longhand_calls", "Finished calls.", labels=["method", "code", "reason"])
        for labels, count in list(self._calls.items()):
            calls.add_metric(labels, count)
        yield calls
        yield _histogram(
            "longhand_call_seconds",
            "Time from the arrival of a call to its end; streams count when they close.",
            ["method"],
            {(method,): seconds for method, seconds in list(self._call_seconds.items())},
        )
        yield GaugeMetricFamily(
            "longhand_calls_in_progress", "Calls and streams that are open.", value=self._in_progress
        )

    def _collect_models(self, models: dict[str, _ModelCounts]) -> Iterator[Metric]:
        lines = CounterMetricFamily(
            "longhand_lines", "Images answered, by outcome.", labels=["model", "reason"]
        )
        for model, counts in models.items():
            for reason, images in list(counts.outcomes.items()):
                lines.add_metric([model, reason], images)
        yield lines
        second_looks = CounterMetricFamily(
            "longhand_second_looks", "Lines read again since the model was unsure.", labels=["model"]
        )
        for model, counts in models.items():
            second_looks.add_metric([model], counts.second_looks)
        yield second_looks
        yield _histogram(
            "longhand_stage_seconds",
            "Time of one image in a stage; a batch's network and beam time counts for each of its images.",
            ["model", "stage"],
            {
                (model, stage): seconds
                for model, counts in models.items()
                for stage, seconds in zip(_STAGES, counts.stages, strict=True)
            },
        )
        for name, description, of in (
            ("longhand_confidence", "Confidence of the texts read.", attrgetter("confidence")),
            ("longhand_batch_size", "Images in a run of the network.", attrgetter("batch_size")),
            ("longhand_batch_padding", "Share of a batch's columns that is padding.", attrgetter("padding")),
        ):
            values: dict[tuple[str, ...], _Distribution] = {
                (model,): of(counts) for model, counts in models.items()
            }
            yield _histogram(name, description, ["model"], values)


def _histogram(
    name: str, description: str, labels: Sequence[str], values: Mapping[tuple[str, ...], _Distribution]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, description, labels=labels)
    for key, distribution in values.items():
        family.add_metric(key, distribution.buckets(), distribution.sum)
    return family
