"""A model that runs in another process: here images are decoded and wait, there lines are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from longhand_server.bundle import ModelBundle
from longhand_server.config import ServerConfig
from longhand_server.cores import usable_cores
from longhand_server.image import LineImage
from longhand_server.metrics import Metrics
from longhand_server.options import RecognitionOptions
from longhand_server.pipeline import Job, RecognitionPipeline, image_queue
from longhand_server.recognizer import Transcription, blank_transcription
from longhand_server.registry import LoadedModel, ServedModel
from longhand_server.workers import Workers


class LineReader(Protocol):
    """Where the networks are."""

    async def describe(self, name: str, version: str) -> LoadedModel:
        """What is known of a model there."""

    async def read(
        self,
        name: str,
        version: str,
        line: LineImage,
        options: RecognitionOptions,
        priority: int,
        caller: str,
    ) -> Transcription:
        """Reads a prepared line with a model."""


class RemotePipeline(RecognitionPipeline):
    """Decodes image files here, and has a bounded number of lines read elsewhere at a time.

    Args:
        model: The model on disk.
        config: The queue's bound, and what an image file may be at most.
        reader: Where the lines are read.
        in_flight: Most images that are decoded or read at a time; the others wait in a fair queue.
    """

    def __init__(self, model: ModelBundle, config: ServerConfig, reader: LineReader, in_flight: int) -> None:
        super().__init__(model.line, config.image)
        self._name, self._version = model.name, model.version
        self._reader = reader
        self._workers = Workers(config.runtime.threads or usable_cores(), "image")
        self._images = image_queue(self._run, config.batching, concurrency=in_flight)

    async def _run(self, jobs: Sequence[Job], hand_over: Callable[[], None]) -> list[Transcription]:
        (job,) = jobs
        line = await self._workers.submit(self._load, job)
        if line.is_blank:
            return [blank_transcription(line)]
        job.check_wanted()
        result = await self._reader.read(
            self._name, self._version, line, job.options, job.priority, job.caller
        )
        job.queue_ms += result.timings.queue_ms
        return [result]


class RemoteModel(ServedModel):
    """A served model that runs elsewhere.

    Args:
        bundle: The model on disk, checked.
        config: The settings.
        metrics: Sees its queue.
        reader: Where it runs.
        in_flight: See :class:`RemotePipeline`.
    """

    def __init__(
        self, bundle: ModelBundle, config: ServerConfig, metrics: Metrics, reader: LineReader, in_flight: int
    ) -> None:
        super().__init__(bundle, config, "remote", metrics)
        self._reader = reader
        self._in_flight = in_flight

    async def _make_pipeline(self) -> tuple[RecognitionPipeline, LoadedModel]:
        loaded = await self._reader.describe(self.name, self.version)
        return RemotePipeline(self.bundle, self._config, self._reader, self._in_flight), loaded
