"""What Prometheus can see of a server. Names, labels and units stand in server/README.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from longhand_server.recognizer import Transcription

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGES = ("queue", "decode_image", "infer", "beam")
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "longhand_calls", "Finished calls.", ("method", "code", "reason"), registry=self.registry
        )
        self._call_seconds = Histogram(
            "longhand_call_seconds",
            "Time from the arrival of a call to its end; streams count when they close.",
            ("method",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._in_progress = Gauge(
            "longhand_calls_in_progress", "Calls and streams that are open.", registry=self.registry
        )
        self._lines = Counter(
            "longhand_lines", "Images answered, by outcome.", ("model", "reason"), registry=self.registry
        )
        self._stages = Histogram(
            "longhand_stage_seconds",
            "Time of one image in a stage; a batch's network and beam time counts for each of its images.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._confidence = Histogram(
            "longhand_confidence",
            "Confidence of the texts read.",
            ("model",),
            buckets=_SHARES,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "longhand_batch_size",
            "Images in a run of the network.",
            ("model",),
            buckets=_SIZES,
            registry=self.registry,
        )
        self._padding = Histogram(
            "longhand_batch_padding",
            "Share of a batch's columns that is padding.",
            ("model",),
            buckets=_SHARES,
            registry=self.registry,
        )
        self._gpu = Gauge(
            "longhand_gpu_memory_bytes",
            "Memory that PyTorch holds on a device.",
            ("device",),
            registry=self.registry,
        )
        self._children: dict[str, tuple[Counter, Histogram, tuple[Histogram, ...]]] = {}
        self._queue = Gauge(
            "longhand_queue_images", "Images that wait for a worker.", ("model",), registry=self.registry
        )

    def call_began(self) -> None:
        """A call or stream was opened."""
        self._in_progress.inc()

    def call_ended(self, method: str, code: str, reason: str, seconds: float) -> None:
        """A call or stream was closed with that status."""
        self._in_progress.dec()
        self._calls.labels(method, code, reason).inc()
        self._call_seconds.labels(method).observe(seconds)

    def line_read(self, model: str, result: Transcription) -> None:
        """An image was read."""
        children = self._children.get(model)
        if children is None:
            children = self._children[model] = self._children_of(model)
        lines, confidence, stages = children
        lines.inc()
        confidence.observe(result.confidence)
        timings = result.timings
        times = (timings.queue_ms, timings.decode_image_ms, timings.infer_ms, timings.beam_ms)
        for stage, milliseconds in zip(stages, times, strict=True):
            stage.observe(milliseconds / 1000)

    def _children_of(self, model: str) -> tuple[Counter, Histogram, tuple[Histogram, ...]]:
        """What every image needs, looked up once."""
        stages = tuple(self._stages.labels(model, stage) for stage in _STAGES)
        return self._lines.labels(model, ""), self._confidence.labels(model), stages

    def line_failed(self, model: str, reason: str) -> None:
        """An image was not read."""
        self._lines.labels(model, reason).inc()

    def batch_started(self, model: str, widths: Sequence[int]) -> None:
        """The network starts on lines of these widths in pixels. May be called from any thread."""
        self._batch_size.labels(model).observe(len(widths))
        self._padding.labels(model).observe(1 - sum(widths) / (len(widths) * max(widths)))

    def watch_gpu(self, device: str, used: Callable[[], int]) -> None:
        """Lets a GPU's memory be asked for, in bytes, when Prometheus asks."""
        self._gpu.labels(device).set_function(used)

    def watch_queue(self, model: str, waiting: Callable[[], int]) -> None:
        """Lets the queue's length be asked for when Prometheus asks."""
        self._queue.labels(model).set_function(waiting)
