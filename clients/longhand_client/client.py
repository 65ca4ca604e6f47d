"""The synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_client.batch import fill_batch, named_as_batch, place_outcomes
from longhand_client.checks import seconds, whole_number
from longhand_client.connection import DEFAULT_ADDRESS, LONGEST_S, Connection, Tls
from longhand_client.errors import client_closed, from_rpc_error
from longhand_client.images import MAX_IMAGE_BYTES, ImageSource, image_bytes
from longhand_client.options import RecognitionOptions, options_to_proto
from longhand_client.results import (
    Model,
    Outcome,
    Transcription,
    model_from_proto,
    transcription_from_proto,
)
from longhand_client.stream import RecognitionStream, StreamCall, StreamSettings

_Answer = TypeVar("_Answer")


class RecognizerClient:
    """Reads handwritten lines with a Longhand server. Threads may share one client.

    Args:
        address: "host", "host:port" or "unix:path", or several of them, among which calls take turns.
        timeout_s: seconds that a call may take, its retries included.
        tls: encryption; None = plain text.
        token: sent as a bearer token; None = none.
        retries: how often a call is tried again while the server is unavailable or full; 0 = never.
        keepalive_s: seconds of silence after which a call in progress pings the server.
        max_image_bytes: larger image files are refused before they are sent.
        channel: a channel of one's own, such as one with interceptors; the address then only names it in messages,
            and encryption, keepalive and the retries of single calls are its own affair. Closed with the client.

    Raises:
        ValueError: an address, a token or a number that makes no sense.

    Example:
        >>> from longhand_client import RecognizerClient
        >>> with RecognizerClient(address) as client:
        ...     print(client.recognize("examples/sample_line.png").text != "")
        True
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout_s: float = 30.0,
        tls: Tls | None = None,
        token: str | None = None,
        retries: int = 3,
        keepalive_s: float = 30.0,
        max_image_bytes: int = MAX_IMAGE_BYTES,
        channel: grpc.Channel | None = None,
    ) -> None:
        self._connection = Connection(
            address=address, tls=tls, token=token, retries=retries, keepalive_s=keepalive_s
        )
        self._timeout_s = seconds("timeout_s", timeout_s, LONGEST_S)
        self._max_image_bytes = whole_number("max_image_bytes", max_image_bytes, 1)
        self._closed = False
        self._channel = _open_channel(self._connection) if channel is None else channel
        self._stub = rpc.RecognitionServiceStub(self._channel)

    @property
    def address(self) -> str:
        """The address as it was given."""
        return self._connection.name

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
        config = pb.StreamingRecognizeConfig(options=options_to_proto(options), group_answers=True)
        settings = StreamSettings(
            config=pb.StreamingRecognizeRequest(config=config),
            address=self._connection.described,
            look_ahead=look_ahead,
            ordered=ordered,
            retries=self._connection.retries,
            max_image_bytes=self._max_image_bytes,
            timeout_s=self._timeout_s,
        )

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
            timeout_s = self._timeout_s if timeout_s is None else seconds("timeout_s", timeout_s, LONGEST_S)
            return method(request, timeout=timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._connection.described) from error


def _open_channel(connection: Connection) -> grpc.Channel:
    target, options, credentials = connection.target(), connection.options(), connection.credentials()
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)
