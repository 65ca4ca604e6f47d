"""The benchmark's way to the service, as thin as it can be.

It calls through the generated methods rather than through `AsyncRecognizerClient`, so that what it measures is the
server: requests are serialised once for each image, and of an answer only what is counted is looked at.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand_client.aio import open_channel
from longhand_client.connection import Connection
from longhand_client.errors import LonghandError, from_rpc_error, from_status
from longhand_client.options import RecognitionOptions, options_to_proto

_SERVICE: str = pb.DESCRIPTOR.services_by_name["RecognitionService"].full_name


class Wire:
    """Sends images in random order.

    Args:
        connection: where the service is.
        images: image files.
        options: how to read.
        batch_size: images in one batch.
        timeout_s: seconds that a call may take.
        seed: of the choice of images.
    """

    def __init__(
        self,
        connection: Connection,
        images: Sequence[bytes],
        options: RecognitionOptions | None,
        *,
        batch_size: int,
        timeout_s: float,
        seed: int,
    ) -> None:
        self._address = connection.described
        self._metadata = connection.metadata
        self._timeout_s = timeout_s
        self._batch_size = batch_size
        self._choice = random.Random(seed).randrange
        self._options = options_to_proto(options)
        self._images = images
        self._singles = [
            pb.RecognizeRequest(image=image, options=self._options).SerializeToString() for image in images
        ]
        self._channel = open_channel(connection)
        # Without a serialiser gRPC takes bytes.
        self._recognize = self._method("Recognize", pb.RecognizeResponse)
        self._recognize_batch = self._method("BatchRecognize", pb.BatchRecognizeResponse)

    def _method(self, name: str, answer: Any) -> Callable[..., Awaitable[Any]]:
        path = f"/{_SERVICE}/{name}"
        return self._channel.unary_unary(path, response_deserializer=answer.FromString)

    async def check(self) -> None:
        """Raises LonghandError where no service answers."""
        await self._call(self._method("GetModel", pb.GetModelResponse), b"")

    async def single(self) -> pb.Timings:
        """Reads one image.

        Raises:
            LonghandError: it failed.
        """
        answer = await self._call(self._recognize, self._singles[self._choice(len(self._singles))])
        timings: pb.Timings = answer.result.timings
        return timings

    async def batch(self) -> list[pb.Timings | LonghandError]:
        """Reads several images in one call.

        Raises:
            LonghandError: the call as a whole failed.
        """
        request = pb.BatchRecognizeRequest(options=self._options)
        for _ in range(self._batch_size):
            request.items.add(image=self._next_image())
        answer = await self._call(self._recognize_batch, request.SerializeToString())
        return [_outcome(one) for one in answer.outcomes]

    async def _call(self, method: Callable[..., Awaitable[Any]], request: bytes) -> Any:
        try:
            return await method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address) from error

    def stream(self, timeout_s: float) -> WireStream:
        """Opens a stream, which may take so many seconds."""
        method: Any = self._channel.stream_stream(
            f"/{_SERVICE}/StreamingRecognize", response_deserializer=pb.StreamingRecognizeResponse.FromString
        )
        call = method(timeout=timeout_s, metadata=self._metadata)
        return WireStream(call, self._address, self._options, self._next_image)

    def _next_image(self) -> bytes:
        return self._images[self._choice(len(self._images))]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


class WireStream:
    """One open stream. Images carry the numbers that their answers come back with."""

    def __init__(
        self, call: Any, address: str, options: pb.RecognitionOptions | None, next_image: Callable[[], bytes]
    ) -> None:
        self._call = call
        self._address = address
        self._config = pb.StreamingRecognizeConfig(options=options, group_answers=True)
        self._next_image = next_image

    async def open(self) -> None:
        """Sends the first message."""
        await self._call.write(pb.StreamingRecognizeRequest(config=self._config).SerializeToString())

    async def send(self, number: int) -> None:
        """Sends one image, waiting while the server takes no more."""
        image = pb.StreamingRecognizeImage(request_id=str(number), image=self._next_image())
        await self._call.write(pb.StreamingRecognizeRequest(image=image).SerializeToString())

    async def end(self) -> None:
        """Says that no image follows."""
        await self._call.done_writing()

    async def answers(self) -> AsyncIterator[tuple[int, pb.Timings | LonghandError]]:
        """Yields the number of an image, and the server's times for it or why it failed.

        Raises:
            LonghandError: the stream as a whole failed.
        """
        try:
            async for message in self._call:
                for answer in message.answers.answers or (message,):
                    yield int(answer.request_id), _outcome(answer)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._address) from error

    def cancel(self) -> None:
        """Ends the stream at once."""
        self._call.cancel()


def _outcome(answer: pb.BatchRecognizeOutcome | pb.StreamingRecognizeResponse) -> pb.Timings | LonghandError:
    return from_status(answer.error) if answer.HasField("error") else answer.result.timings
