"""What both services ask of a model, whom they refuse, and what they count: with a model that only notes it."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Iterable
from typing import Any, NoReturn, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from longhand.oip import inference_pb2 as oip
from longhand.v1 import recognition_pb2 as pb
from longhand_server.calls import CallGate
from longhand_server.config import ListenConfig, ServerConfig
from longhand_server.errors import ModelNotFoundError, OverloadedError
from longhand_server.metrics import Metrics
from longhand_server.oip_servicer import InferenceServicer
from longhand_server.oip_tensors import join_elements
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Timings, Transcription
from longhand_server.security import Caller
from longhand_server.servicer import RecognitionServicer
from longhand_server.statistics import ModelStatistics
from longhand_server.tracing import CallSpan, Tracer


class Model:
    """The only model of its registry, whose pipeline is itself; reads an image as its own bytes."""

    name, version = "toy", "1.2.0"

    def __init__(self) -> None:
        self.failed = False
        self.loaded = None
        self.bundle: Any = type("Bundle", (), {"alphabet": frozenset("abc")})
        self.statistics = ModelStatistics()
        self.default = self
        self.asked: list[dict[str, Any]] = []
        self.is_full = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def all(self) -> list[Model]:
        return [self]

    def find(self, name: str = "", version: str = "") -> Model:
        if name in ("", self.name) and version in ("", self.version):
            return self
        raise ModelNotFoundError("no such model", field="options.model")

    async def pipeline(self) -> Model:
        return self

    def check_room(self) -> None:
        if self.is_full:
            raise OverloadedError("full", retry_after_ms=70)

    async def recognize(self, image: bytes, _: RecognitionOptions, **wishes: Any) -> Transcription:
        self.asked.append(wishes)
        await self.may_answer.wait()
        return Transcription(image.decode(), 1.0, (), (), (), 9, 9, Timings())


class Noted(Caller):
    """A caller with a token, of whom the counts are noted."""

    def __init__(self) -> None:
        super().__init__("me", b"", 5.0)
        self.spent: list[tuple[int, int]] = []

    def spend(self, images: int, now: float, *, leave: int = 0) -> None:
        self.spent.append((images, leave))


class Span(CallSpan):
    """Notes its end."""

    def __init__(self, ended: list[tuple[str, int]]) -> None:
        super().__init__()
        self._ended = ended

    def end(self, code: str, reason: str, images: int) -> None:
        self._ended.append((code, images))


class Traces(Tracer):
    """Notes the ends of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[str, int]] = []

    def begin(self, *_: object) -> CallSpan:
        return Span(self.ended)


class Context:
    """A call from 10.0.0.7 that notes how it is ended."""

    def __init__(self, remaining: float | None = None) -> None:
        self.remaining = remaining
        self.code: grpc.StatusCode | None = None
        self.trailers: dict[str, Any] = {}

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:10.0.0.7:4711"

    def time_remaining(self) -> float | None:
        return self.remaining

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def add_done_callback(self, callback: object) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, _: str, trailers: Iterable[tuple[str, Any]]) -> NoReturn:
        self.code, self.trailers = code, dict(trailers)
        raise grpc.aio.AbortError


class Services:
    """Both services over one model."""

    def __init__(self, holder: Caller | None = None, **limits: Any) -> None:
        self.model, self.metrics, self.traces = Model(), Metrics(), Traces()
        registry: Any = self.model
        tokens: Any = type("Tokens", (), {"authenticate": lambda *_: holder})() if holder else None
        config = ServerConfig(listen=ListenConfig(**limits))
        self.gate = gate = CallGate(self.metrics, self.traces, tokens, log_calls=True)
        self.own = RecognitionServicer(registry, config.listen, gate, self.metrics)
        self.oip = InferenceServicer(registry, config, gate, self.metrics)

    async def call(self, way: str, count: int, context: Any = None) -> list[Any]:
        """Sends so many images in one request by one of the ways that there are."""
        context = context or Context()
        images = [b"%d" % number for number in range(count)]
        if way == "Recognize":
            return [await self.own.Recognize(pb.RecognizeRequest(image=images[0]), context)]
        if way == "BatchRecognize":
            items = [pb.BatchRecognizeItem(image=image) for image in images]
            return list(
                (await self.own.BatchRecognize(pb.BatchRecognizeRequest(items=items), context)).outcomes
            )
        if way == "ModelInfer":
            return [await self.oip.ModelInfer(tensor(images), context)]
        if way == "ModelStreamInfer":
            return [answer async for answer in self.oip.ModelStreamInfer(_all([tensor(images)]), context)]
        group = pb.StreamingRecognizeImages(images=[pb.StreamingRecognizeImage(image=i) for i in images])
        requests = [
            pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()),
            pb.StreamingRecognizeRequest(images=group),
        ]
        return [answer async for answer in self.own.StreamingRecognize(_all(requests), context)]


def tensor(images: list[bytes], **parameters: int) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="toy", raw_input_contents=[join_elements(images)])
    request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


async def _all(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


WAYS = ["Recognize", "BatchRecognize", "StreamingRecognize", "ModelInfer", "ModelStreamInfer"]


@pytest.mark.parametrize(
    ("way", "count", "spent"),
    [
        ("Recognize", 1, [(1, 0)]),
        ("BatchRecognize", 3, [(3, 0)]),
        ("StreamingRecognize", 3, [(1, 1)] * 3),
        ("ModelInfer", 3, [(3, 0)]),
        ("ModelStreamInfer", 3, [(3, 1)]),
    ],
)
async def test_every_image_counts_against_the_rate_and_stands_in_log_and_trace(
    way: str, count: int, spent: list[tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "longhand_server.access")
    holder = Noted()
    services = Services(holder)
    await services.call(way, count)
    assert holder.spent == spent
    assert services.traces.ended == [("OK", count)]
    assert caplog.records[-1].__dict__["fields"]["images"] == count


@pytest.mark.parametrize("way", WAYS)
async def test_only_single_images_are_refused_where_others_wait(way: str) -> None:
    services = Services()
    for count in (1,) if way == "Recognize" else (1, 2):
        services.model.asked.clear()
        await services.call(way, count, Context(5.0))
        now = asyncio.get_running_loop().time()
        is_patient = way in ("BatchRecognize", "StreamingRecognize", "ModelStreamInfer") or count == 2
        for wishes in services.model.asked:
            assert wishes["wait"] == is_patient
            assert wishes["deadline"] == pytest.approx(now + 5.0, abs=1.0)
            assert wishes["priority"] == 0
        assert len(services.model.asked) == count


@pytest.mark.parametrize("way", WAYS)
async def test_each_stream_takes_a_fair_turn_of_its_own(way: str) -> None:
    services = Services()
    for _ in "12":
        await services.call(way, 1)
    first, second = (wishes["caller"] for wishes in services.model.asked)
    if "Stream" in way:
        assert len({first, second, "ipv4:10.0.0.7"}) == 3
    else:
        assert first == second == "ipv4:10.0.0.7"


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_has_ended_leaves_nothing_behind(way: str) -> None:
    services = Services()
    await services.call(way, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not services.gate._streams


@pytest.mark.parametrize("way", ["BatchRecognize", "ModelInfer"])
async def test_a_full_queue_refuses_several_images_as_a_whole_and_says_when_to_come_back(way: str) -> None:
    services, context = Services(), Context()
    services.model.is_full = True
    with pytest.raises(grpc.aio.AbortError):
        await services.call(way, 2, context)
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert services.model.asked == []
    assert context.trailers["grpc-retry-pushback-ms"] == "70"
    status = status_pb2.Status.FromString(context.trailers["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 70


async def test_a_batch_may_have_as_many_images_as_the_limit_says() -> None:
    outcomes = await Services(max_batch_items=3).call("BatchRecognize", 3)
    assert [outcome.result.text for outcome in outcomes] == ["0", "1", "2"]


async def test_ids_are_measured_in_bytes_and_a_longer_one_counts_as_a_failure() -> None:
    services = Services()
    items = [pb.BatchRecognizeItem(request_id="\u00e9" * length, image=b"a") for length in (128, 129)]
    request = pb.BatchRecognizeRequest(items=items)
    first, second = (await services.own.BatchRecognize(request, cast(Any, Context()))).outcomes
    assert first.result.text == "a"
    assert "items[1].request_id: got 258 bytes" in second.error.message
    failed = {"model": "toy", "reason": "INVALID_REQUEST"}
    assert services.metrics.registry.get_sample_value("longhand_lines_total", failed) == 1


@pytest.mark.parametrize(
    ("given", "wanted"), [({}, 0), ({"priority": 1}, 1), ({"priority": 2}, 0), ({"priority": 3}, -1)]
)
async def test_priorities_of_the_open_inference_protocol(given: dict[str, int], wanted: int) -> None:
    services = Services()
    await services.oip.ModelInfer(tensor([b"a"], **given), cast(Any, Context()))
    assert services.model.asked[0]["priority"] == wanted


@pytest.mark.parametrize("may_go_first", [False, True])
async def test_the_callers_row_decides_who_goes_first(may_go_first: bool) -> None:
    services = Services(Caller("me", b"", may_go_first=may_go_first))
    await services.oip.ModelInfer(tensor([b"a"], priority=1), cast(Any, Context()))
    options = pb.RecognitionOptions(priority=pb.PRIORITY_HIGH)
    await services.own.Recognize(pb.RecognizeRequest(image=b"a", options=options), cast(Any, Context()))
    assert [wishes["priority"] for wishes in services.model.asked] == [int(may_go_first)] * 2


@pytest.mark.parametrize("way", ["StreamingRecognize", "ModelStreamInfer"])
async def test_a_stream_without_images_makes_room_for_others(way: str) -> None:
    services, context = Services(stream_idle_s=0.05), Context()

    async def requests() -> AsyncIterator[Any]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        await asyncio.Event().wait()

    async def tensors() -> AsyncIterator[Any]:
        yield tensor([b"a"])
        await asyncio.Event().wait()

    stream: Any = services.oip if way == "ModelStreamInfer" else services.own

    async def read() -> None:
        async for _ in getattr(stream, way)(tensors() if way == "ModelStreamInfer" else requests(), context):
            pass

    with pytest.raises(grpc.aio.AbortError):
        await asyncio.wait_for(read(), 30)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    information = error_details_pb2.ErrorInfo()
    details = status_pb2.Status.FromString(context.trailers["grpc-status-details-bin"]).details
    assert details[0].Unpack(information)
    assert information.reason == "IDLE"


@pytest.mark.parametrize(
    ("remaining", "timeout_s", "wanted"), [(60.0, 5, 5.0), (5.0, 60, 5.0), (None, 5, 5.0)]
)
async def test_the_earlier_of_deadline_and_timeout_holds(
    remaining: float | None, timeout_s: int, wanted: float
) -> None:
    services = Services()
    request = tensor([b"a"], timeout=timeout_s * 1_000_000)
    await services.oip.ModelInfer(request, cast(Any, Context(remaining)))
    now = asyncio.get_running_loop().time()
    assert services.model.asked[0]["deadline"] == pytest.approx(now + wanted, abs=1.0)


async def test_a_timeout_ends_a_request_that_is_being_read() -> None:
    services, context = Services(), Context()
    services.model.may_answer.clear()
    with pytest.raises(grpc.aio.AbortError):
        await services.oip.ModelInfer(tensor([b"a"], timeout=1000), cast(Any, context))
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_leading_number_of_a_version_names_it() -> None:
    request = tensor([b"a"])
    request.model_version = "1"
    response = await Services().oip.ModelInfer(request, cast(Any, Context()))
    assert response.model_version == "1.2.0"


async def test_a_stream_without_a_first_message_ends_with_the_server_and_is_not_read_any_more() -> None:
    services, context = Services(), Context()

    async def silence() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    answers = services.own.StreamingRecognize(silence(), cast(Any, context))
    reading = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.01)
    services.gate.draining.set()
    with pytest.raises(grpc.aio.AbortError):
        await reading
    assert context.code is grpc.StatusCode.UNAVAILABLE
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_tells_what_groups_of_images_may_hold() -> None:
    services = Services(max_batch_items=7, max_request_bytes=8192)
    requests = [
        pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig(group_answers=True)),
        pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(image=b"a")),
    ]
    (group,) = [
        answer async for answer in services.own.StreamingRecognize(_all(requests), cast(Any, Context()))
    ]
    assert (group.answers.max_images, group.answers.max_image_bytes) == (7, 4096)


@pytest.mark.parametrize(("has_failed", "is_draining"), [(False, False), (True, False), (False, True)])
async def test_who_is_ready(has_failed: bool, is_draining: bool) -> None:
    services, context = Services(), cast(Any, Context())
    services.model.failed = has_failed
    if is_draining:
        services.oip.say_not_ready()
    ready = not (has_failed or is_draining)
    assert (await services.oip.ModelReady(oip.ModelReadyRequest(name="toy"), context)).ready == ready
    assert (await services.oip.ServerReady(oip.ServerReadyRequest(), context)).ready != is_draining
    index = await services.oip.RepositoryIndex(oip.RepositoryIndexRequest(ready=True), context)
    assert len(index.models) == ready


async def test_an_open_stream_ends_with_the_server_once_its_images_are_answered() -> None:
    services, context = Services(), Context()
    services.model.may_answer.clear()

    async def requests() -> AsyncIterator[Any]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        yield pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(image=b"a"))
        await asyncio.Event().wait()

    answers = services.own.StreamingRecognize(requests(), cast(Any, context))
    reading = asyncio.ensure_future(anext(answers))
    while not services.model.asked:
        await asyncio.sleep(0)
    draining = asyncio.create_task(services.gate.drain())
    await asyncio.sleep(0)
    services.model.may_answer.set()
    assert (await reading).result.text == "a"
    assert not draining.done()
    async with asyncio.timeout(10):
        with pytest.raises(grpc.aio.AbortError):
            await anext(answers)
        await draining
    assert context.code is grpc.StatusCode.UNAVAILABLE


async def test_a_message_of_a_stream_is_not_kept_while_the_next_one_is_awaited() -> None:
    class Message:
        image = pb.StreamingRecognizeImage(image=b"a")

        def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
            return "image"

    seen: list[weakref.ref[Message]] = []

    def message() -> Message:
        made = Message()
        seen.append(weakref.ref(made))
        return made

    async def requests() -> AsyncIterator[Any]:
        yield message()
        await asyncio.Event().wait()

    images = Services().own._images(requests())
    assert (await anext(images)).image == b"a"
    waiting = asyncio.ensure_future(anext(images))
    await asyncio.sleep(0)
    assert seen[0]() is None
    waiting.cancel()
