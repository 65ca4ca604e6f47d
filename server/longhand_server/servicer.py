"""The gRPC service: protobuf to domain and back, and errors to status codes; nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from google.rpc import status_pb2

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_server import messages
from longhand_server.config import ListenConfig
from longhand_server.errors import InvalidImageError, InvalidRequestError, LonghandError, ShuttingDownError
from longhand_server.options import RecognitionOptions
from longhand_server.registry import ModelRegistry, ServedModel
from longhand_server.streaming import AnswerStream

_LOG = logging.getLogger(__name__)
_MAX_REQUEST_ID_BYTES = 256
ResponseT = TypeVar("ResponseT")
# grpc's own class is not generic at run time.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class _Work:
    """What one call or stream wants done with its images."""

    def __init__(self, message: pb.RecognitionOptions, registry: ModelRegistry, deadline: float, caller: str):
        self.options: RecognitionOptions = messages.read_options(message)
        self.priority = messages.read_priority(message)
        self.model: ServedModel = registry.find(message.model, message.model_version)
        self.model.recognizer.check_options(self.options)
        self.deadline = deadline
        self.caller = caller

    async def read(self, image: bytes, field: str, *, wait: bool = False) -> pb.RecognitionResult:
        try:
            result = await self.model.pipeline.recognize(
                image,
                self.options,
                deadline=self.deadline,
                priority=self.priority,
                caller=self.caller,
                wait=wait,
            )
        except InvalidImageError as error:
            error.field = field
            raise
        return messages.write_result(result, self.model)


class RecognitionServicer(recognition_pb2_grpc.RecognitionServiceServicer):
    """Answers longhand.v1.RecognitionService.

    Args:
        registry: The models served.
        limits: Bounds on requests.
    """

    def __init__(self, registry: ModelRegistry, limits: ListenConfig) -> None:
        self._registry = registry
        self._limits = limits
        self._streams: set[AnswerStream[pb.StreamingRecognizeRequest, pb.StreamingRecognizeResponse]] = set()
        self._stream_numbers = itertools.count()
        self._in_progress = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def Recognize(self, request: pb.RecognizeRequest, context: Context) -> pb.RecognizeResponse:
        """Reads one image."""

        async def answer() -> pb.RecognizeResponse:
            work = self._work(request.options, context)
            return pb.RecognizeResponse(result=await work.read(request.image, "image"))

        with self._progress():
            return await _answer(answer(), context)

    async def BatchRecognize(
        self, request: pb.BatchRecognizeRequest, context: Context
    ) -> pb.BatchRecognizeResponse:
        """Reads many images; each item has its own outcome."""

        async def answer() -> pb.BatchRecognizeResponse:
            count, most = len(request.items), self._limits.max_batch_items
            if not 1 <= count <= most:
                raise InvalidRequestError(f"items: got {count} images, need 1 to {most}", field="items")
            work = self._work(request.options, context)
            outcomes = await asyncio.gather(
                *(_read_item(work, item, f"items[{i}]") for i, item in enumerate(request.items))
            )
            return pb.BatchRecognizeResponse(outcomes=outcomes)

        with self._progress():
            return await _answer(answer(), context)

    async def StreamingRecognize(
        self, request_iterator: AsyncIterator[pb.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        """Reads images as they come; each has its own outcome."""
        try:
            work = await self._open_stream(request_iterator, context)
            stream = AnswerStream(
                aiter(request_iterator),
                lambda message: _read_message(work, message),
                self._limits.max_stream_in_flight,
            )
            self._streams.add(stream)
            # A client that cancels while nothing is being sent is noticed here and nowhere else.
            context.add_done_callback(lambda _: stream.cancel())  # type: ignore[arg-type]
            with self._progress():
                try:
                    async for answer in stream.answers():
                        yield answer
                finally:
                    self._streams.discard(stream)
        except Exception as error:
            await _abort(context, _known(error))

    async def drain(self) -> None:
        """Takes no more images and returns once those taken are answered; streams end with UNAVAILABLE."""
        self._draining = True
        for stream in list(self._streams):
            stream.drain()
        await self._idle.wait()

    @contextlib.contextmanager
    def _progress(self) -> Iterator[None]:
        self._in_progress += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_progress -= 1
            if self._in_progress == 0:
                self._idle.set()

    async def _open_stream(
        self, requests: AsyncIterator[pb.StreamingRecognizeRequest], context: Context
    ) -> _Work:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("message") != "config":
            raise InvalidRequestError("message: the first message must hold the config", field="message")
        # Each stream takes its own fair turn, also beside others of the same client.
        return self._work(first.config.options, context, f"{context.peer()}#{next(self._stream_numbers)}")

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists the models served, the default one first."""
        default = self._registry.default
        return pb.ListModelsResponse(
            models=[
                messages.write_model(model, is_default=model is default) for model in self._registry.all()
            ]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describes one model."""

        async def answer() -> pb.GetModelResponse:
            try:
                model = self._registry.find(request.name, request.version)
            except LonghandError as error:
                # Here the fields have names of their own.
                error.field = {"options.model": "name", "options.model_version": "version"}.get(
                    error.field or ""
                )
                raise
            is_default = model is self._registry.default
            return pb.GetModelResponse(model=messages.write_model(model, is_default=is_default))

        return await _answer(answer(), context)

    def _work(self, options: pb.RecognitionOptions, context: Context, caller: str = "") -> _Work:
        if self._draining:
            raise ShuttingDownError("the server is stopping; ask another one")
        remaining = cast(float | None, context.time_remaining())
        loop = asyncio.get_running_loop()
        # Its stubs do not say so, but without a deadline gRPC gives None.
        deadline = math.inf if remaining is None else loop.time() + remaining
        return _Work(options, self._registry, deadline, caller or context.peer())


async def _read_item(work: _Work, item: pb.BatchRecognizeItem, field: str) -> pb.BatchRecognizeOutcome:
    outcome = pb.BatchRecognizeOutcome(request_id=item.request_id)
    await _fill_outcome(outcome, work, item, field)
    return outcome


async def _read_message(work: _Work, message: pb.StreamingRecognizeRequest) -> pb.StreamingRecognizeResponse:
    if message.WhichOneof("message") != "image":
        raise InvalidRequestError("message: every message but the first must hold an image", field="message")
    response = pb.StreamingRecognizeResponse(request_id=message.image.request_id)
    await _fill_outcome(response, work, message.image, "image")
    return response


async def _fill_outcome(
    outcome: pb.BatchRecognizeOutcome | pb.StreamingRecognizeResponse,
    work: _Work,
    item: pb.BatchRecognizeItem | pb.StreamingRecognizeImage,
    field: str,
) -> None:
    """Reads one of several images; what goes wrong becomes its own status."""
    try:
        _check_request_id(item.request_id, f"{field}.request_id")
        # One call or stream holds a bounded number of images, so they may wait for room in the queue.
        outcome.result.CopyFrom(await work.read(item.image, f"{field}.image", wait=True))
    except Exception as error:
        outcome.error.CopyFrom(messages.write_status(_known(error)))


def _check_request_id(request_id: str, field: str) -> None:
    size = len(request_id.encode())
    if size > _MAX_REQUEST_ID_BYTES:
        raise InvalidRequestError(
            f"{field}: got {size} bytes, at most {_MAX_REQUEST_ID_BYTES} are taken", field=field
        )


async def _answer(answer: Awaitable[ResponseT], context: Context) -> ResponseT:
    """Awaits a call's answer; an error ends the call with its status."""
    try:
        return await answer
    except Exception as error:
        await _abort(context, _known(error))
        raise  # not reached: abort raises


def _known(error: Exception) -> LonghandError:
    """The error as one of ours; what nobody foresaw is logged and told without its text."""
    if isinstance(error, LonghandError):
        if error.code == "INTERNAL":
            _LOG.error("%s", error, exc_info=error.__cause__ or error)
        return error
    _LOG.error("unexpected failure", exc_info=error)
    return LonghandError("unexpected failure in the server; its log says more")


async def _abort(context: Context, error: LonghandError) -> None:
    status: status_pb2.Status = messages.write_status(error)
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if error.retry_after_ms is not None:
        trailers.append(("grpc-retry-pushback-ms", str(error.retry_after_ms)))
    await context.abort(grpc.StatusCode[error.code], error.message, tuple(trailers))
