"""The asynchronous client: the same methods, awaited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_client.aio_stream import AsyncRecognitionStream, is_being_cancelled
from longhand_client.base import ClientBase
from longhand_client.batch import fill_batch, named_as_batch, place_outcomes
from longhand_client.connection import Connection
from longhand_client.errors import client_closed, from_rpc_error
from longhand_client.images import ImageSource, image_bytes
from longhand_client.options import RecognitionOptions, options_to_proto
from longhand_client.results import (
    Model,
    Outcome,
    Transcription,
    model_from_proto,
    transcription_from_proto,
)

_Answer = TypeVar("_Answer")


def open_channel(connection: Connection) -> grpc.aio.Channel:
    """A channel to where the connection says; it connects with the first call.

    Raises:
        ValueError: the address makes no sense.
    """
    target, options, credentials = connection.target(), connection.options(), connection.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


class AsyncRecognizerClient(ClientBase[grpc.aio.Channel]):
    """Reads handwritten lines with a Longhand server, for asyncio. All its calls belong to one event loop.

    Its arguments are those of :class:`longhand_client.base.ClientBase`.

    Example:
        >>> import asyncio
        >>> from longhand_client import AsyncRecognizerClient
        >>> async def read(path):
        ...     async with AsyncRecognizerClient(address) as client:
        ...         return await client.recognize(path)
        >>> asyncio.run(read("examples/sample_line.png")).text != ""
        True
    """

    def _prepare(self, channel: grpc.aio.Channel | None) -> None:
        self._given_channel = channel
        self._streams: set[AsyncRecognitionStream] = set()
        if channel is None:
            self._connection.target()  # makes sense, or raises

    # Opened by the first call: a channel belongs to the event loop that runs where it is opened, and a client may be
    # made before there is one.
    @functools.cached_property
    def _channel(self) -> grpc.aio.Channel:
        return open_channel(self._connection) if self._given_channel is None else self._given_channel

    @functools.cached_property
    def _stub(self) -> rpc.RecognitionServiceAsyncStub:
        return rpc.RecognitionServiceStub(self._channel)

    async def recognize(
        self,
        image: ImageSource,
        options: RecognitionOptions | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Transcription:
        """Reads one image of one line; see `RecognizerClient.recognize`."""
        if isinstance(image, bytes):
            content = image_bytes(image, self._max_image_bytes)
        else:  # a file may be slow to read, an array slow to pack
            content = await asyncio.to_thread(image_bytes, image, self._max_image_bytes)
        request = pb.RecognizeRequest(image=content, options=options_to_proto(options))
        answer = await self._call(self._stub.Recognize, request, timeout_s)
        return transcription_from_proto(answer.result)

    async def recognize_batch(
        self,
        images: Iterable[ImageSource],
        options: RecognitionOptions | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[Outcome]:
        """Reads several images in one call; see `RecognizerClient.recognize_batch`."""
        request = pb.BatchRecognizeRequest(options=options_to_proto(options))
        outcomes = await asyncio.to_thread(fill_batch, request, images, self._max_image_bytes)
        if request.items:
            with named_as_batch():
                place_outcomes(outcomes, await self._call(self._stub.BatchRecognize, request, timeout_s))
        return outcomes

    async def recognize_stream(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        options: RecognitionOptions | None = None,
        *,
        ordered: bool = True,
        look_ahead: int = 64,
    ) -> AsyncGenerator[Outcome, None]:
        """Reads any number of images over one stream; see `RecognizerClient.recognize_stream`.

        Args:
            images: an iterable (pulled in the event loop: it must not block) or an asynchronous one.
            options: how to read all of them.
            ordered: outcomes in the order of the images; otherwise as they come.
            look_ahead: images that may be on their way at once.

        Yields:
            One outcome for each image.
        """
        if self._closed:
            raise client_closed()
        settings = self._stream_settings(options, ordered=ordered, look_ahead=look_ahead)
        stream = AsyncRecognitionStream(
            lambda: self._stub.StreamingRecognize(metadata=self._connection.metadata), images, settings
        )
        self._streams.add(stream)
        try:
            async with aclosing(stream.outcomes()) as outcomes:
                async for outcome in outcomes:
                    yield outcome
        finally:
            self._streams.discard(stream)

    async def models(self) -> list[Model]:
        """The models that the server serves, the default one first."""
        answer = await self._call(self._stub.ListModels, pb.ListModelsRequest())
        return [model_from_proto(model) for model in answer.models]

    async def model(self, name: str = "", version: str = "") -> Model:
        """Describes one model; see `RecognizerClient.model`."""
        answer = await self._call(self._stub.GetModel, pb.GetModelRequest(name=name, version=version))
        return model_from_proto(answer.model)

    async def health(self) -> str:
        """What the server's health service says of it as a whole; see `RecognizerClient.health`."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)  # its type stubs know no methods
        answer = await self._call(stub.Check, health_pb2.HealthCheckRequest())
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def close(self) -> None:
        """Closes the connection; calls in progress fail."""
        self._closed = True
        # A channel that closes forgets its streams, and whoever waits for them would wait for ever.
        for stream in self._streams:
            stream.fail(client_closed())
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(
        self, method: Callable[..., Awaitable[_Answer]], request: object, timeout_s: float | None = None
    ) -> _Answer:
        if self._closed:
            raise client_closed()
        try:
            return await method(
                request, timeout=self._seconds_of_call(timeout_s), metadata=self._connection.metadata
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._connection.described) from error
        except asyncio.CancelledError:
            # gRPC raises it, too, where the channel is closed; nobody wanted the caller's task to end.
            if is_being_cancelled():
                raise
            raise client_closed() from None
