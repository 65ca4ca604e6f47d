"""The synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
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
from longhand_client.stream import RecognitionStream, StreamCall

_Answer = TypeVar("_Answer")


class RecognizerClient(ClientBase[grpc.Channel]):
    """Reads handwritten lines with a Longhand server. Threads may share one client.

    Its arguments are those of :class:`longhand_client.base.ClientBase`.

    Example:
        >>> from longhand_client import RecognizerClient
        >>> with RecognizerClient(address) as client:
        ...     print(client.recognize("examples/sample_line.png").text != "")
        True
    """

    def _prepare(self, channel: grpc.Channel | None) -> None:
        self._channel = _open_channel(self._connection) if channel is None else channel
        self._stub = rpc.RecognitionServiceStub(self._channel)

    def recognize(
        self,
        image: ImageSource,
        options: RecognitionOptions | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Transcription:
        """Reads one image of one line.

        Args:
            image: the bytes of an image file, its path, an open file, a uint8 array or a Pillow image.
            options: how to read; None = the default model with its tuned settings.
            timeout_s: seconds that this call may take; None = the client's own.

        Returns:
            What was read; a blank line gives an empty text.

        Raises:
            InvalidImageError: no readable picture of a line.
            ServerUnavailableError: nobody answers at the address.
            LonghandError: any other failure, see `longhand_client.errors`.
        """
        request = pb.RecognizeRequest(
            image=image_bytes(image, self._max_image_bytes), options=options_to_proto(options)
        )
        answer = self._call(self._stub.Recognize, request, timeout_s)
        return transcription_from_proto(answer.result)

    def recognize_batch(
        self,
        images: Iterable[ImageSource],
        options: RecognitionOptions | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[Outcome]:
        """Reads several images in one call.

        Args:
            images: see `recognize`; at most what the server takes in one call (256 unless configured).
            options: how to read all of them.
            timeout_s: seconds that this call may take; None = the client's own.

        Returns:
            One outcome for each image, in the order given: a bad image does not touch the others.

        Raises:
            LonghandError: the call as a whole failed.
        """
        request = pb.BatchRecognizeRequest(options=options_to_proto(options))
        outcomes = fill_batch(request, images, self._max_image_bytes)
        if request.items:
            with named_as_batch():
                place_outcomes(outcomes, self._call(self._stub.BatchRecognize, request, timeout_s))
        return outcomes

    def recognize_stream(
        self,
        images: Iterable[ImageSource],
        options: RecognitionOptions | None = None,
        *,
        ordered: bool = True,
        look_ahead: int = 64,
    ) -> Generator[Outcome, None, None]:
        """Reads any number of images over one stream, in constant memory.

        A stream that breaks because the server goes away is opened again; the unanswered images go with it.

        Args:
            images: what `recognize` accepts; pulled in another thread, at most `look_ahead` images before
                their outcomes are taken.
            options: how to read all of them.
            ordered: outcomes in the order of the images; otherwise as they come.
            look_ahead: images that may be on their way at once.

        Yields:
            One outcome for each image; a bad image does not touch the others. Leaving the loop ends it all.

        Raises:
            ServerUnavailableError: the server went away and did not come back.
            DeadlineExceededError: images wait and no answer came for the client's `timeout_s`.
            LonghandError: the stream as a whole failed.

        Example:
            >>> from longhand_client import RecognizerClient
            >>> with RecognizerClient(address) as client:
            ...     images = ["examples/sample_line.png"] * 3
            ...     [outcome.index for outcome in client.recognize_stream(images)]
            [0, 1, 2]
        """
        settings = self._stream_settings(options, ordered=ordered, look_ahead=look_ahead)
        if self._closed:
            raise client_closed()

        def open_call(requests: Iterator[pb.StreamingRecognizeRequest]) -> StreamCall:
            if self._closed:
                raise client_closed()
            return self._stub.StreamingRecognize(requests, metadata=self._connection.metadata)

        return RecognitionStream(open_call, images, settings).outcomes()

    def models(self) -> list[Model]:
        """The models that the server serves, the default one first.

        Raises:
            LonghandError: the call failed.
        """
        answer = self._call(self._stub.ListModels, pb.ListModelsRequest())
        return [model_from_proto(model) for model in answer.models]

    def model(self, name: str = "", version: str = "") -> Model:
        """Describes one model.

        Args:
            name: its name; "" = the default model.
            version: its version; "" = the newest.

        Raises:
            ModelNotFoundError: the server does not serve it.
            LonghandError: the call failed.
        """
        answer = self._call(self._stub.GetModel, pb.GetModelRequest(name=name, version=version))
        return model_from_proto(answer.model)

    def health(self) -> str:
        """What the server's health service says of it as a whole.

        Returns:
            "SERVING", "NOT_SERVING" or "UNKNOWN".

        Raises:
            LonghandError: the call failed.
        """
        stub: Any = health_pb2_grpc.HealthStub(self._channel)  # its type stubs know no methods
        answer = self._call(stub.Check, health_pb2.HealthCheckRequest())
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def close(self) -> None:
        """Closes the connection; calls in progress fail."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
        self, method: Callable[..., _Answer], request: object, timeout_s: float | None = None
    ) -> _Answer:
        if self._closed:
            raise client_closed()
        try:
            return method(
                request, timeout=self._seconds_of_call(timeout_s), metadata=self._connection.metadata
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._connection.described) from error


def _open_channel(connection: Connection) -> grpc.Channel:
    target, options, credentials = connection.target(), connection.options(), connection.credentials()
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)
