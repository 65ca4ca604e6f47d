"""The pipeline with a simulated network: its stages overlap, failures stay alone, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.toy_model import draw_image
from longhand_server.config import BatchingConfig, ImageLimits, LineFormat
from longhand_server.errors import (
    DeadlineExceededError,
    InvalidImageError,
    OverloadedError,
    RecognitionFailedError,
    ShuttingDownError,
)
from longhand_server.image import LineImage
from longhand_server.options import RecognitionOptions
from longhand_server.pipeline import Job, RecognitionPipeline, StagedPipeline, image_queue, make_pipeline
from longhand_server.recognizer import Recognizer, Timings, Transcription

_OPTIONS = RecognitionOptions()


class SimulatedModel:
    """Takes the time that a device would take; reads the width of an image as its text."""

    def __init__(
        self, device: str, infer_s: float = 0.0, line_s: float = 0.0, beam_line_s: float = 0.0
    ) -> None:
        self.bundle = self.line_model = self
        self.line = LineFormat()
        self.device = device
        self.infer_s, self.line_s, self.beam_line_s = infer_s, line_s, beam_line_s
        self.batches: list[list[int]] = []
        self.poison = -1

    def infer(self, images: Sequence[LineImage]) -> tuple[list[NDArray[np.float32]], float]:
        widths = [image.source_width for image in images]
        self.batches.append([image.pixels.shape[1] for image in images])
        time.sleep(self.infer_s + self.line_s * len(images))
        if self.poison in widths:
            raise RuntimeError("the device gave up")
        return [np.zeros((1, 1), np.float32) for _ in images], 1.0

    def transcribe(
        self,
        images: Sequence[LineImage],
        log_probs: object,
        infer_ms: float,
        options: object,
        still_wanted: Callable[[int], bool],
        tell_sure: Callable[[dict[int, Transcription]], None] = lambda _: None,
    ) -> list[Transcription]:
        time.sleep(self.beam_line_s * len(images))
        timings = Timings(infer_ms=infer_ms, batch_size=len(images))
        return [
            Transcription(
                str(image.source_width), 1.0, (), (), (), image.source_width, image.source_height, timings
            )
            for image in images
        ]

    def recognize(
        self, images: Sequence[LineImage], options: object, still_wanted: Callable[[int], bool]
    ) -> list[Transcription]:
        return self.transcribe(images, *self.infer(images), options, still_wanted)


def build(model: SimulatedModel, **batching: Any) -> RecognitionPipeline:
    config = BatchingConfig(**{"max_queue": 5000, **batching})
    return make_pipeline(cast(Recognizer, model), config, ImageLimits(), threads=2)


@pytest.fixture(params=["cpu", "cuda:0"])
def model(request: pytest.FixtureRequest) -> SimulatedModel:
    return SimulatedModel(request.param, infer_s=0.002)


def width_of(text: str) -> str:
    return str(96 + 28 * len(text))  # see helpers.toy_model.draw_text


async def test_every_image_gets_its_own_answer_and_times(model: SimulatedModel) -> None:
    pipeline = build(model)
    texts = ["a" * (1 + n % 23) for n in range(80)]
    results = await asyncio.gather(*(pipeline.recognize(draw_image(text), _OPTIONS) for text in texts))
    assert [result.text for result in results] == [width_of(text) for text in texts]
    for result in results:
        assert result.timings.decode_image_ms > 0
        assert result.timings.total_ms > result.timings.queue_ms >= 0
    await pipeline.close()


async def test_closing_ends_every_thread(model: SimulatedModel) -> None:
    before = threading.active_count()
    pipeline = build(model)
    assert threading.active_count() > before
    await pipeline.close()
    async with asyncio.timeout(10):
        while threading.active_count() > before:
            await asyncio.sleep(0.01)


async def test_waiting_and_opening_are_told_apart(model: SimulatedModel) -> None:
    model.infer_s = 0.05
    pipeline = build(model, max_batch_size=1 if model.device == "cpu" else 2)
    calls = (pipeline.recognize(draw_image("a"), _OPTIONS) for _ in range(8))
    timings = [result.timings for result in await asyncio.gather(*calls)]
    # Four of them one after the other.
    assert max(times.queue_ms for times in timings) > 3 * 50 - 5
    for times in timings:
        assert times.queue_ms + times.decode_image_ms + 50 - 5 <= times.total_ms
    await pipeline.close()


async def test_one_image_that_breaks_the_network_fails_alone(model: SimulatedModel) -> None:
    pipeline = build(model)
    model.poison = int(width_of("aaaaa"))
    texts = ["a" * (1 + n % 8) for n in range(40)]
    calls = (pipeline.recognize(draw_image(text), _OPTIONS) for text in texts)
    results = await asyncio.gather(*calls, return_exceptions=True)
    for text, result in zip(texts, results, strict=True):
        if len(text) == 5:
            assert isinstance(result, RecognitionFailedError)
            assert "gave up" not in str(result)
        else:
            assert isinstance(result, Transcription)
            assert result.text == width_of(text)
    await pipeline.close()


async def test_a_bad_image_fails_alone_among_those_that_one_thread_opens() -> None:
    model = SimulatedModel("cuda:0")
    pipeline = build(model)
    texts = ["" if n % 3 == 1 else "a" * (1 + n % 8) for n in range(40)]
    calls = (pipeline.recognize(draw_image(text) if text else b"text", _OPTIONS) for text in texts)
    results = await asyncio.gather(*calls, return_exceptions=True)
    for text, result in zip(texts, results, strict=True):
        if text:
            assert isinstance(result, Transcription)
            assert result.text == width_of(text)
        else:
            assert isinstance(result, InvalidImageError)
    await pipeline.close()


async def test_bad_images_leave_nothing_behind_without_a_collection() -> None:
    pipeline = build(SimulatedModel("cuda:0"))
    gc.collect()
    gc.disable()
    try:
        calls = (pipeline.recognize(image, _OPTIONS) for image in (b"text", draw_image("a")) * 8)
        results = await asyncio.gather(*calls, return_exceptions=True)
        seen = [weakref.ref(result) for result in results if isinstance(result, InvalidImageError)]
        del results
        await asyncio.sleep(0.05)
        assert len(seen) == 8
        assert not [error for error in seen if error() is not None]
    finally:
        gc.enable()
    await pipeline.close()


@pytest.mark.parametrize("end", ["the network fails", "the deadline passes", "the caller leaves"])
async def test_lines_that_are_not_read_leave_nothing_behind_without_a_collection(
    model: SimulatedModel, end: str
) -> None:
    model.infer_s = 0.1
    pipeline = build(model)
    image = draw_image("a")
    deadline = math.inf
    if end == "the network fails":
        model.poison = int(width_of("a"))
    elif end == "the deadline passes":
        deadline = asyncio.get_running_loop().time() + 0.15
    gc.collect()
    gc.disable()
    try:
        calls = [
            asyncio.ensure_future(pipeline.recognize(image, _OPTIONS, deadline=deadline)) for _ in range(8)
        ]
        if end == "the caller leaves":
            await asyncio.sleep(0.15)
            for call in calls:
                call.cancel()
            del call
        await asyncio.gather(*calls, return_exceptions=True)
        calls.clear()
        await asyncio.sleep(0.3)
        assert not [thing for thing in gc.get_objects() if type(thing) in (Job, LineImage)]
    finally:
        gc.enable()
    await pipeline.close()


async def test_bad_images_expired_and_cancelled_ones_never_reach_the_network(model: SimulatedModel) -> None:
    pipeline = build(model)
    with pytest.raises(InvalidImageError):
        await pipeline.recognize(b"text", _OPTIONS)
    with pytest.raises(DeadlineExceededError):
        await pipeline.recognize(draw_image("a"), _OPTIONS, deadline=asyncio.get_running_loop().time() - 1)
    calls = [asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS)) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert pipeline.waiting == 0
    await pipeline.close()
    assert sum(map(len, model.batches)) <= 4  # those that were being decoded already


class GatedModel(SimulatedModel):
    """A network that is not done before its gate is opened."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.gate = threading.Event()

    def infer(self, images: Sequence[LineImage]) -> tuple[list[NDArray[np.float32]], float]:
        answer = super().infer(images)
        self.gate.wait(30)
        return answer


async def test_what_expires_or_is_cancelled_just_before_a_worker_takes_it_is_not_read() -> None:
    model = GatedModel()
    pipeline = build(model)  # two workers, so the third image is at hand for the first that is done
    loop = asyncio.get_running_loop()

    async def occupy_workers() -> list[asyncio.Task[Transcription]]:
        model.gate.clear()
        before = len(model.batches)
        calls = [asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS)) for _ in "12"]
        async with asyncio.timeout(30):
            while len(model.batches) < before + 2:
                await asyncio.sleep(0.005)
        return calls

    calls = await occupy_workers()
    soon = loop.time() + 0.2
    late = asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS, deadline=soon))
    loop.call_at(soon + 0.05, model.gate.set)
    results = await asyncio.gather(*calls, late, return_exceptions=True)
    assert [type(result) for result in results] == [Transcription, Transcription, DeadlineExceededError]

    calls = await occupy_workers()
    given_up = asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS))
    await asyncio.sleep(0.2)  # for its image to be decoded and handed over
    given_up.cancel()
    loop.call_later(0.05, model.gate.set)
    await asyncio.gather(*calls, given_up, return_exceptions=True)
    await pipeline.close()
    assert len(model.batches) == 4


class HeldModel(SimulatedModel):
    """Waits between its two looks at a line, and notes whether the second one is still wanted."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.looked_once, self.go_on = threading.Event(), threading.Event()
        self.wanted: list[bool] = []

    def transcribe(
        self,
        images: Sequence[LineImage],
        log_probs: object,
        infer_ms: float,
        options: object,
        still_wanted: Callable[[int], bool],
        tell_sure: Callable[[dict[int, Transcription]], None] = lambda _: None,
    ) -> list[Transcription]:
        self.looked_once.set()
        self.go_on.wait(10)
        self.wanted += map(still_wanted, range(len(images)))
        return super().transcribe(images, log_probs, infer_ms, options, still_wanted)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_call_given_up_after_the_first_look_wants_no_second(device: str, is_cancelled: bool) -> None:
    model = HeldModel(device)
    pipeline = build(model)
    call = asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS))
    await asyncio.to_thread(model.looked_once.wait, 10)
    if is_cancelled:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    model.go_on.set()
    await pipeline.close()
    assert model.wanted == [not is_cancelled]
    await asyncio.gather(call, return_exceptions=True)


class UnsureModel(HeldModel):
    """Is sure of every line but the first of a batch, and may take its time to look at that one again."""

    def __init__(self, device: str, *, may_fail: bool = False) -> None:
        super().__init__(device)
        self.may_fail = may_fail

    def transcribe(
        self,
        images: Sequence[LineImage],
        log_probs: object,
        infer_ms: float,
        options: object,
        still_wanted: Callable[[int], bool],
        tell_sure: Callable[[dict[int, Transcription]], None] = lambda _: None,
    ) -> list[Transcription]:
        results = SimulatedModel.transcribe(self, images, log_probs, infer_ms, options, still_wanted)
        if len(images) > 1:
            tell_sure(dict(list(enumerate(results))[1:]))
            self.go_on.wait(10)
            if self.may_fail:
                raise RuntimeError("at the second look")
        return results


@pytest.mark.parametrize("may_fail", [False, True])
async def test_lines_that_are_sure_do_not_wait_for_the_second_looks_of_others(may_fail: bool) -> None:
    model = UnsureModel("cuda:0", may_fail=may_fail)
    pipeline = build(model, max_batch_size=8, max_delay_ms=10_000)
    texts = ["a" * (20 + n % 2) for n in range(8)]
    calls = [asyncio.create_task(pipeline.recognize(draw_image(text), _OPTIONS)) for text in texts]
    async with asyncio.timeout(10):
        done = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(done[0]) < 7:
            done = await asyncio.wait(calls, timeout=0.01)
    assert len(done[0]) == 7
    model.go_on.set()
    results = await asyncio.gather(*calls)
    assert [result.text for result in results] == [width_of(text) for text in texts]
    # Where a second look fails, only the one that still waited is read once more.
    assert [len(batch) for batch in model.batches] == [8, 1][: 1 + may_fail]
    await pipeline.close()


@pytest.mark.parametrize("seconds", [60.0, -0.001])
def test_an_image_is_wanted_until_its_deadline(seconds: float) -> None:
    job = Job(b"", _OPTIONS, time.monotonic() + seconds, 0, "")
    assert job.is_wanted == (seconds > 0)


async def test_every_queue_knows_whose_image_it_is_and_how_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = cast(StagedPipeline, build(SimulatedModel("cuda:0")))
    asked: list[tuple[str, dict[str, Any]]] = []

    def note(queue: Any, name: str, label: str) -> None:
        method = getattr(queue, name)

        def noted(*arguments: Any, **wishes: Any) -> Any:
            asked.append((label, wishes))
            return method(*arguments, **wishes)

        monkeypatch.setattr(queue, name, noted)

    note(pipeline._images, "room", "room")
    note(pipeline._images, "submit", "images")
    note(pipeline._lines, "submit", "lines")
    deadline = asyncio.get_running_loop().time() + 60
    await pipeline.recognize(draw_image("a"), _OPTIONS, deadline=deadline, priority=1, caller="me", wait=True)
    whose = {"priority": 1, "caller": "me"}
    assert asked == [
        ("room", whose),
        ("images", {**whose, "deadline": deadline}),
        ("lines", {**whose, "deadline": deadline, "size": 112}),
    ]
    await pipeline.close()


async def test_lines_given_up_while_they_wait_for_a_gpu_are_not_read() -> None:
    model = HeldModel("cuda:0")
    pipeline = build(model, max_batch_size=1)
    # The beam search is held, and takes two batches; the network does the next one, and then waits as well.
    calls = [asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS)) for _ in range(8)]
    async with asyncio.timeout(10):
        while len(model.batches) < 3 or pipeline.waiting < 4:
            await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    model.go_on.set()
    await pipeline.close()
    assert len(model.batches) == 3


async def test_lines_wait_for_a_gpu_that_has_enough_of_them() -> None:
    model = HeldModel("cuda:0")
    pipeline = cast(StagedPipeline, build(model, max_batch_size=1))
    calls = [asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS)) for _ in range(16)]
    async with asyncio.timeout(10):
        while len(model.batches) < 3 or pipeline._lines.waiting < 4:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    model.go_on.set()
    assert [result.text for result in await asyncio.gather(*calls)] == [width_of("a")] * 16
    await pipeline.close()


async def test_cancelling_while_lines_wait_frees_their_places() -> None:
    model = SimulatedModel("cpu", infer_s=0.05)
    pipeline = build(model)
    calls = [asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS)) for _ in range(30)]
    await asyncio.sleep(0.2)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    begun = time.perf_counter()
    assert (await pipeline.recognize(draw_image("ab"), _OPTIONS)).text == width_of("ab")
    assert time.perf_counter() - begun < 1.0
    assert len(model.batches) < 20
    await pipeline.close()


async def test_a_full_queue_refuses_and_patient_images_wait() -> None:
    model = SimulatedModel("cpu", infer_s=0.01)
    pipeline = build(model, max_queue=3)
    calls = [pipeline.recognize(draw_image("a"), _OPTIONS) for _ in range(40)]
    patient = [pipeline.recognize(draw_image("ab"), _OPTIONS, wait=True) for _ in range(20)]
    results = await asyncio.gather(*calls, *patient, return_exceptions=True)
    assert sum(isinstance(result, OverloadedError) for result in results[:40]) > 20
    assert all(isinstance(result, Transcription) for result in results[40:])
    await pipeline.close()
    with pytest.raises(ShuttingDownError):
        await pipeline.recognize(draw_image("a"), _OPTIONS)


async def test_a_file_that_is_too_large_does_not_wait() -> None:
    model = HeldModel("cpu")
    pipeline = build(model, max_queue=1)
    calls = [asyncio.create_task(pipeline.recognize(draw_image("a"), _OPTIONS)) for _ in range(4)]
    await asyncio.sleep(0)
    assert pipeline.waiting == 1
    with pytest.raises(InvalidImageError, match="at most 4194304 are read"):
        await pipeline.recognize(bytes((4 << 20) + 1), _OPTIONS)
    model.go_on.set()
    await asyncio.gather(*calls)
    await pipeline.close()


async def test_streams_and_batches_fill_half_of_the_queue() -> None:
    go_on = asyncio.Event()

    async def run(jobs: Sequence[Job], hand_over: Callable[[], None]) -> list[None]:
        await go_on.wait()
        return [None] * len(jobs)

    queue = image_queue(run, BatchingConfig(max_queue=8), concurrency=1)

    async def patient() -> None:
        await queue.room()
        await queue.submit(Job(b"", _OPTIONS, math.inf, 0, ""))

    calls = [asyncio.create_task(patient()) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert queue.waiting == 4
    go_on.set()
    await asyncio.gather(*calls)


async def test_on_a_gpu_the_stages_overlap_and_batches_hold_like_widths() -> None:
    """End to end at least 80 % of what the slowest stage alone can do (the network: 160 lines/s here)."""
    model = SimulatedModel("cuda:0", infer_s=0.08, line_s=0.005, beam_line_s=0.004)
    pipeline = build(model, max_batch_size=64)
    texts = ["a" * (4 + n % 4) for n in range(640)]
    images = {text: draw_image(text) for text in set(texts)}
    begun = time.perf_counter()
    results = await asyncio.gather(*(pipeline.recognize(images[text], _OPTIONS) for text in texts))
    seconds = time.perf_counter() - begun
    assert [result.text for result in results] == [width_of(text) for text in texts]
    network_alone = 640 / 64 * 0.08 + 640 * 0.005
    assert seconds < network_alone / 0.8, f"{seconds:.2f} s, the network alone {network_alone:.2f} s"
    padded = sum(len(batch) * max(batch) for batch in model.batches)
    assert 1 - sum(map(sum, model.batches)) / padded < 0.2
    await pipeline.close()
