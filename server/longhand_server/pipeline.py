"""The way of an image through one model: decode the file, then the network, then the beam search.

Images wait as files in one queue that is fair and that refuses. On a CPU, where every stage wants the same cores, a
worker then takes an image all the way: handing it from thread to thread would only cost. On a GPU each stage has its
own workers and takes the next batch while the one before is still on its way; a stage that falls behind holds up the
one before it, so that what is in memory stays bounded.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from longhand_server.batching import BatchFunction, DynamicBatcher
from longhand_server.config import BatchingConfig, ImageLimits, LineFormat
from longhand_server.cores import usable_cores
from longhand_server.errors import DeadlineExceededError, LonghandError, RecognitionFailedError
from longhand_server.image import LineImage, load_line_image
from longhand_server.image_file import check_file_size
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer, Transcription, blank_transcription
from longhand_server.workers import Workers

_GPU_BATCH_SIZE = 64
# Images that a thread opens in one go for a GPU: each hand-over costs the event loop time that it lacks there.
_IMAGES_AT_ONCE = 4
# Batches' worth of decoded lines that may wait for a GPU, so that its width buckets fill.
_GPU_LOOKAHEAD = 4
# Batches that may be between the network and their answers.
_BEAM_BATCHES = 2


@dataclass(slots=True, eq=False)
class Job:
    """One image on its way through a pipeline."""

    data: bytes | LineImage
    options: RecognitionOptions
    deadline: float
    priority: int
    caller: str
    arrived: float = field(default_factory=time.perf_counter, init=False)
    decoded: float = field(default=0.0, init=False)
    decode_ms: float = field(default=0.0, init=False)
    queue_ms: float = field(default=0.0, init=False)
    line: LineImage | None = field(default=None, init=False)
    reading: asyncio.Future[Transcription] | None = field(default=None, init=False)
    abandoned: bool = field(default=False, init=False)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        if self.reading is not None:
            self.reading.cancel()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for it, and its deadline has not passed."""
        return not self.abandoned and self.deadline > time.monotonic()  # the clock of every event loop

    def check_wanted(self) -> None:
        """Raises what its caller got or is to get where it need not be read any more."""
        if self.is_wanted:
            return
        if self.abandoned:
            raise RecognitionFailedError("nobody waits for this image any more")
        waited_ms = (time.perf_counter() - self.arrived) * 1000
        raise DeadlineExceededError(f"the deadline passed after {waited_ms:.0f} ms in the queue")

    def time(self, result: Transcription) -> Transcription:
        """Fills this image's own times in."""
        timings = result.timings
        timings.decode_image_ms = self.decode_ms
        timings.queue_ms = self.queue_ms
        timings.total_ms = (time.perf_counter() - self.arrived) * 1000
        return result


def image_queue(
    run: BatchFunction[Job, Any], batching: BatchingConfig, *, concurrency: int, together: int = 1
) -> DynamicBatcher[Job, Any]:
    """The queue in which image files wait.

    Args:
        run: Takes images out of it.
        batching: Its bound. Streams and batches, which wait where single calls are refused, may fill half of it.
        concurrency: How often ``run`` runs at the same time.
        together: Most images that it takes at a time.
    """
    return DynamicBatcher(
        run,
        replace(batching, max_batch_size=together, max_delay_ms=0.0),
        concurrency=concurrency,
        patient_queue=(batching.max_queue + 1) // 2,
    )


class RecognitionPipeline:
    """Reads image files with one model, from one event loop; :func:`make_pipeline` makes the right kind.

    Args:
        line: The shape of line that the model reads.
        limits: What an image file may be at most.
    """

    # What each kind makes for itself: the queue of image files, and the threads that open them.
    _images: DynamicBatcher[Job, Any]
    _workers: Workers

    def __init__(self, line: LineFormat, limits: ImageLimits) -> None:
        # The workers here are the threads; OpenCV's own would only be woken in vain.
        cv2.setNumThreads(1)
        self._line = line
        self._limits = limits
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """Images that wait for a worker."""
        return self._images.waiting

    async def close(self) -> None:
        """Accepts nothing more, finishes what was accepted, ends the workers."""
        await self._images.close()
        self._workers.close()

    def check_room(self) -> None:
        """Raises OverloadedError where the queue is full."""
        self._images.check_room()

    def _read(self, job: Job) -> Awaitable[Transcription]:
        """Takes an image all the way."""
        result: Awaitable[Transcription] = self._submit(job)
        return result

    def _submit(self, job: Job) -> asyncio.Future[Any]:
        return self._images.submit(job, deadline=job.deadline, priority=job.priority, caller=job.caller)

    async def recognize(
        self,
        data: bytes | LineImage,
        options: RecognitionOptions,
        *,
        deadline: float = math.inf,
        priority: int = 0,
        caller: str = "",
        wait: bool = False,
    ) -> Transcription:
        """Reads one image.

        Args:
            data: The file, or the line where another process has prepared it.
            options: How to read it, checked against the model's alphabet already.
            deadline: Event loop time after which the answer is of no use, in seconds.
            priority: Larger goes first.
            caller: Who asks, for fairness.
            wait: Whether to wait for room in a full queue instead of failing.

        Raises:
            InvalidImageError: The file is no readable image of a line.
            OverloadedError: The queue is full.
            DeadlineExceededError: The deadline passed in the queue.
            ShuttingDownError: The pipeline is closing.
            RecognitionFailedError: The network or the decoder failed on this image.
        """
        if isinstance(data, bytes):
            check_file_size(data, self._limits)  # here: a file that is too large is not to wait in the queue
        job = Job(data, options, deadline, priority, caller)
        if wait:
            await self._images.room(priority=priority, caller=caller)
        try:
            return job.time(await self._read(job))
        except asyncio.CancelledError:
            job.abandon()
            raise
        except LonghandError:
            raise
        except Exception as error:
            raise RecognitionFailedError("the recogniser failed on this image") from error
        finally:
            job.reading = None  # a circle, as in _read of a staged pipeline

    def _load(self, job: Job) -> LineImage:
        job.check_wanted()  # it may have waited for its thread
        begun = time.perf_counter()
        job.queue_ms = (begun - job.arrived) * 1000
        data = job.data
        line = data if isinstance(data, LineImage) else load_line_image(data, self._line, self._limits)
        job.line = line
        job.decoded = time.perf_counter()
        job.decode_ms = (job.decoded - begun) * 1000
        return line


class LocalPipeline(RecognitionPipeline):
    """A pipeline whose model is in this process.

    Args:
        recognizer: The model.
        limits: What an image file may be at most.
        on_batch: Is told the widths in pixels of each batch that starts, from a worker's thread.
    """

    def __init__(
        self, recognizer: Recognizer, limits: ImageLimits, on_batch: Callable[[Sequence[int]], None]
    ) -> None:
        super().__init__(recognizer.bundle.line, limits)
        self.recognizer = recognizer
        self._on_batch = on_batch

    def _started(self, jobs: Sequence[Job]) -> list[LineImage]:
        now = time.perf_counter()
        for job in jobs:
            job.queue_ms += (now - job.decoded) * 1000
        lines = [job.line for job in jobs if job.line is not None]
        self._on_batch([line.pixels.shape[1] for line in lines])
        return lines


class SerialPipeline(LocalPipeline):
    """One worker takes an image from file to text: for a CPU."""

    def __init__(
        self,
        recognizer: Recognizer,
        batching: BatchingConfig,
        limits: ImageLimits,
        workers: int,
        on_batch: Callable[[Sequence[int]], None],
    ) -> None:
        super().__init__(recognizer, limits, on_batch)
        self._workers = Workers(workers, "line")
        # One more than there are workers: whoever is done finds the next image at hand and need not be woken for it.
        self._images = image_queue(self._run, batching, concurrency=workers + 1)

    def _run(self, jobs: Sequence[Job], hand_over: Callable[[], None]) -> asyncio.Future[list[Transcription]]:
        return self._workers.submit(self._run_now, jobs[0])

    def _run_now(self, job: Job) -> list[Transcription]:
        line = self._load(job)
        if line.is_blank:
            return [blank_transcription(line)]
        lines = self._started([job])
        job.line = None  # so that its memory is given back here and not by the event loop's thread
        return self.recognizer.recognize(lines, [job.options], lambda _: job.is_wanted)


class StagedPipeline(LocalPipeline):
    """Decoding files, network and beam search at the same time, the network in batches: for a GPU."""

    def __init__(
        self,
        recognizer: Recognizer,
        batching: BatchingConfig,
        limits: ImageLimits,
        workers: int,
        on_batch: Callable[[Sequence[int]], None],
    ) -> None:
        super().__init__(recognizer, limits, on_batch)
        batch_size = batching.max_batch_size or _GPU_BATCH_SIZE
        self._workers = Workers(workers, "image")
        self._network_workers = Workers(1, "network")
        self._beam_workers = Workers(_BEAM_BATCHES, "beam")
        self._beam_slots = asyncio.Semaphore(_BEAM_BATCHES)
        self._images = image_queue(self._prepare, batching, concurrency=workers, together=_IMAGES_AT_ONCE)
        self._lines: DynamicBatcher[Job, Transcription] = DynamicBatcher(
            self._infer,
            replace(batching, max_batch_size=batch_size, max_queue=_GPU_LOOKAHEAD * batch_size),
        )

    @property
    def waiting(self) -> int:
        """See the base class."""
        return self._images.waiting + self._lines.waiting

    async def close(self) -> None:
        """See the base class."""
        await self._images.close()
        await self._lines.close()
        for workers in (self._workers, self._network_workers, self._beam_workers):
            workers.close()

    async def _read(self, job: Job) -> Transcription:
        # Without a name: what is raised knows the variables here, and a failed future knows what is raised.
        answer: Transcription = await (await self._submit(job))
        return answer

    async def _prepare(
        self, jobs: Sequence[Job], hand_over: Callable[[], None]
    ) -> Sequence[asyncio.Future[Transcription] | Exception]:
        """The first stage: decodes image files and queues their lines for the network."""
        opened = await self._workers.submit(self._open, jobs)
        return [await self._queued(job, line) for job, line in zip(jobs, opened, strict=True)]

    def _open(self, jobs: Sequence[Job]) -> list[LineImage | Exception]:
        return [self._opened(job) for job in jobs]

    def _opened(self, job: Job) -> LineImage | Exception:
        """A line, or what is wrong with its image, which is nothing to the others."""
        # A function of its own: an exception knows the variables of the functions that it went through, and among
        # those may not be the list that it is in, or image and lines stay until a full garbage collection.
        try:
            return self._load(job)
        except Exception as error:
            return error

    async def _queued(
        self, job: Job, line: LineImage | Exception
    ) -> asyncio.Future[Transcription] | Exception:
        """The future answer to an opened image."""
        if isinstance(line, Exception):
            return line
        if line.is_blank:
            answer: asyncio.Future[Transcription] = self._loop.create_future()
            answer.set_result(blank_transcription(line))
            return answer
        await self._lines.room()
        try:
            job.check_wanted()
            # To the network a caller's fair turn has come already; what counts there is the width.
            job.reading = self._lines.submit(
                job,
                size=line.pixels.shape[1],
                deadline=job.deadline,
                priority=job.priority,
                caller=job.caller,
            )
        except LonghandError as error:
            return error
        return job.reading

    async def _infer(self, jobs: Sequence[Job], hand_over: Callable[[], None]) -> list[Transcription]:
        """Network and beam search one after the other: the GPU goes on while the CPU searches.

        Lines that are sure do not wait for others of their batch that are looked at again.
        """

        def tell_sure(sure: Mapping[int, Transcription]) -> None:
            self._loop.call_soon_threadsafe(_answer, jobs, sure)

        lines, log_probs, infer_ms = await self._network_workers.submit(self._infer_now, jobs)
        async with self._beam_slots:
            hand_over()
            options = [job.options for job in jobs]
            return await self._beam_workers.submit(
                self.recognizer.transcribe,
                lines,
                log_probs,
                infer_ms,
                options,
                lambda index: jobs[index].is_wanted,
                tell_sure,
            )

    def _infer_now(self, jobs: Sequence[Job]) -> tuple[list[LineImage], list[NDArray[np.float32]], float]:
        lines = self._started(jobs)
        return lines, *self.recognizer.infer(lines)


def _answer(jobs: Sequence[Job], sure: Mapping[int, Transcription]) -> None:
    """Gives some of a batch's lines their answers, which the end of the batch would give them later."""
    for index, result in sure.items():
        reading = jobs[index].reading
        if reading is not None and not reading.done():
            reading.set_result(result)


def make_pipeline(
    recognizer: Recognizer,
    batching: BatchingConfig,
    limits: ImageLimits,
    *,
    threads: int = 0,
    on_batch: Callable[[Sequence[int]], None] = lambda widths: None,
) -> RecognitionPipeline:
    """The pipeline that suits the model's device.

    Args:
        recognizer: The model.
        batching: The queue's bound and how batches are made.
        limits: What an image file may be at most.
        threads: Images worked on at the same time on a CPU, or decoded at the same time for a GPU; 0 = one per core
            that this process may use.
        on_batch: Is told the widths in pixels of each batch that starts, from a worker's thread.
    """
    workers = threads or usable_cores()
    serial = recognizer.line_model.device == "cpu" and batching.max_batch_size <= 1
    kind = SerialPipeline if serial else StagedPipeline
    return kind(recognizer, batching, limits, workers, on_batch)
