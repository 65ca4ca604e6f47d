"""The gRPC service: protobuf to domain and back; nothing else."""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_server import messages
from longhand_server.calls import Call, CallGate, Context, as_known
from longhand_server.config import ListenConfig
from longhand_server.errors import InvalidRequestError, LonghandError, ShuttingDownError
from longhand_server.metrics import Metrics
from longhand_server.registry import ModelRegistry
from longhand_server.streaming import AnswerStream
from longhand_server.work import Work

_MAX_REQUEST_ID_BYTES = 256
# Answers that go out in one message. More would save little, and long lines with many readings must fit in it.
_MOST_GROUPED = 32
# Nobody holds one of the places for calls without saying what for.
_FIRST_MESSAGE_S = 20.0


class _StreamedImage(NamedTuple):
    """One image of a stream. It is not the message's own part, which would keep the whole message in memory."""

    request_id: str
    image: bytes


class RecognitionServicer(recognition_pb2_grpc.RecognitionServiceServicer):
    """Answers longhand.v1.RecognitionService.

    Args:
        registry: The models served.
        limits: Bounds on requests.
        gate: What every call goes through.
        metrics: Counts images.
    """

    def __init__(
        self, registry: ModelRegistry, limits: ListenConfig, gate: CallGate, metrics: Metrics
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._gate = gate
        self._metrics = metrics
        self._stream_numbers = itertools.count()

    async def Recognize(self, request: pb.RecognizeRequest, context: Context) -> pb.RecognizeResponse:
        """Reads one image."""
        response = pb.RecognizeResponse()
        async with self._gate.call("Recognize", context) as call:
            call.spend(1)
            work = self._work(request.options, call)
            await _read(work, request.image, "image", response.result)
        return response

    async def BatchRecognize(
        self, request: pb.BatchRecognizeRequest, context: Context
    ) -> pb.BatchRecognizeResponse:
        """Reads many images; each item has its own outcome."""
        response = pb.BatchRecognizeResponse()
        async with self._gate.call("BatchRecognize", context) as call:
            count, most = len(request.items), self._limits.max_batch_items
            if not 1 <= count <= most:
                raise InvalidRequestError(f"items: got {count} images, need 1 to {most}", field="items")
            call.spend(count)
            work = self._work(request.options, call)
            (await work.model.pipeline()).check_room()
            outcomes = [response.outcomes.add(request_id=item.request_id) for item in request.items]
            await asyncio.gather(
                *(
                    _fill_outcome(outcome, work, item, f"items[{index}]")
                    for index, (outcome, item) in enumerate(zip(outcomes, request.items, strict=True))
                )
            )
        return response

    async def StreamingRecognize(
        self, request_iterator: AsyncIterator[pb.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        """Reads images as they come; each has its own outcome."""
        async with self._gate.call("StreamingRecognize", context) as call:
            first = await self._first(aiter(request_iterator))
            if first is None or first.WhichOneof("message") != "config":
                raise InvalidRequestError("message: the first message must hold the config", field="message")
            work = self._work(first.config.options, call)
            group_answers = first.config.group_answers
            del first  # it may be large, and the stream may be long
            # Each stream takes its own fair turn, also beside others of the same client.
            work.turn = f"{call.caller}#{next(self._stream_numbers)}"
            stream = AnswerStream(
                self._images(request_iterator),
                lambda image: _read_streamed(work, image),
                self._limits.max_stream_in_flight,
                self._limits.stream_idle_s,
            )
            with self._gate.stream(stream, call, context):
                if group_answers:
                    async for group in stream.groups(_MOST_GROUPED):
                        yield pb.StreamingRecognizeResponse(answers=self._grouped(group))
                else:
                    async for answer in stream.answers():
                        yield answer

    async def _first(
        self, requests: AsyncIterator[pb.StreamingRecognizeRequest]
    ) -> pb.StreamingRecognizeRequest | None:
        """A stream's first message; None where it ends without one.

        Raises:
            ShuttingDownError: The server stops before it has come.
            InvalidRequestError: It does not come.
        """

        async def read() -> pb.StreamingRecognizeRequest | None:
            return await anext(requests, None)

        loop = asyncio.get_running_loop()
        reading, draining = loop.create_task(read()), loop.create_task(self._gate.draining.wait())
        try:
            await asyncio.wait(
                (reading, draining), return_when=asyncio.FIRST_COMPLETED, timeout=_FIRST_MESSAGE_S
            )
            if self._gate.draining.is_set():
                raise ShuttingDownError("the server is stopping; open the stream again elsewhere")
            if not reading.done():
                problem = f"no message came within {_FIRST_MESSAGE_S:g} s; the first one must hold the config"
                raise InvalidRequestError(problem, field="message")
            return reading.result()
        finally:
            reading.cancel()
            draining.cancel()

    def _grouped(self, answers: list[pb.StreamingRecognizeResponse]) -> pb.StreamingRecognizeAnswers:
        return pb.StreamingRecognizeAnswers(
            answers=answers,
            max_images=self._limits.max_batch_items,
            # The rest is for ids.
            max_image_bytes=self._limits.max_request_bytes // 2,
        )

    async def _images(
        self, requests: AsyncIterator[pb.StreamingRecognizeRequest]
    ) -> AsyncIterator[_StreamedImage]:
        """The images of the messages that follow the first one."""
        async for request in requests:
            images = collections.deque(self._unpack(request))
            del request  # it would stay in memory until the next one comes
            while images:
                yield images.popleft()

    def _unpack(self, request: pb.StreamingRecognizeRequest) -> Iterable[_StreamedImage]:
        match request.WhichOneof("message"):
            case "image":
                return (_StreamedImage(request.image.request_id, request.image.image),)
            case "images":
                images, most = request.images.images, self._limits.max_batch_items
                if 1 <= len(images) <= most:
                    return (_StreamedImage(image.request_id, image.image) for image in images)
                problem = f"images: got {len(images)} images in a message, need 1 to {most}"
                raise InvalidRequestError(problem, field="images")
        raise InvalidRequestError("message: every message but the first must hold images", field="message")

    def _work(self, options: pb.RecognitionOptions, call: Call) -> Work:
        wanted = (options.model, options.model_version)
        priority = messages.read_priority(options)
        return Work(messages.read_options(options), priority, wanted, self._registry, call, self._metrics)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists the models served, the default one first."""
        response = pb.ListModelsResponse()
        async with self._gate.call("ListModels", context):
            default = self._registry.default
            for model in self._registry.all():
                response.models.append(messages.write_model(model, is_default=model is default))
        return response

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describes one model."""
        response = pb.GetModelResponse()
        async with self._gate.call("GetModel", context):
            try:
                model = self._registry.find(request.name, request.version)
            except LonghandError as error:
                # Here the fields have names of their own.
                names = {"options.model": "name", "options.model_version": "version"}
                error.field = names.get(error.field or "")
                raise
            is_default = model is self._registry.default
            response.model.CopyFrom(messages.write_model(model, is_default=is_default))
        return response


async def _read(
    work: Work, image: bytes, field: str, message: pb.RecognitionResult, *, wait: bool = False
) -> None:
    """Reads an image into ``message``."""
    with work.model.statistics.request():
        reading = await work.read(image, field, wait=wait)
    messages.write_result(reading, message)


async def _read_streamed(work: Work, image: _StreamedImage) -> pb.StreamingRecognizeResponse:
    response = pb.StreamingRecognizeResponse(request_id=image.request_id)
    await work.call.await_turn()
    await _fill_outcome(response, work, image, "image")
    return response


async def _fill_outcome(
    outcome: pb.BatchRecognizeOutcome | pb.StreamingRecognizeResponse,
    work: Work,
    item: pb.BatchRecognizeItem | _StreamedImage,
    field: str,
) -> None:
    """Reads one of several images; what goes wrong becomes its own status."""
    try:
        try:
            _check_request_id(item.request_id, f"{field}.request_id")
        except InvalidRequestError as error:
            work.failed(error)
            raise
        # One call or stream holds a bounded number of images, so they may wait for room in the queue.
        await _read(work, item.image, f"{field}.image", outcome.result, wait=True)
    except Exception as error:
        outcome.error.CopyFrom(messages.write_status(as_known(error, work.call.request_id)))


def _check_request_id(request_id: str, field: str) -> None:
    size = len(request_id.encode())
    if size > _MAX_REQUEST_ID_BYTES:
        raise InvalidRequestError(
            f"{field}: got {size} bytes, at most {_MAX_REQUEST_ID_BYTES} are taken", field=field
        )
