"""What the synchronous and the asynchronous client are made with, and what both know of their server."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Generic, TypeVar

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand_client.checks import seconds, whole_number
from longhand_client.connection import DEFAULT_ADDRESS, LONGEST_S, Connection, Tls
from longhand_client.images import MAX_IMAGE_BYTES
from longhand_client.options import RecognitionOptions, options_to_proto
from longhand_client.stream import StreamSettings

ChannelT = TypeVar("ChannelT", grpc.Channel, grpc.aio.Channel)


class ClientBase(abc.ABC, Generic[ChannelT]):
    """A client's settings. Each client adds its calls."""

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
        channel: ChannelT | None = None,
    ) -> None:
        """Makes a client; it connects with its first call.

        Args:
            address: "host", "host:port" or "unix:path", or several of them, among which calls take turns.
            timeout_s: seconds that a call may take, its retries included.
            tls: encryption; None = plain text.
            token: sent as a bearer token; None = none.
            retries: how often a call is tried again while the server is unavailable or full, with growing pauses;
                0 = never. Of a single call gRPC allows 4, over in about 1.5 s where nobody answers; for streams see
                `RecognizerClient.recognize_stream`.
            keepalive_s: seconds of silence after which a call in progress pings the server.
            max_image_bytes: larger image files are refused before they are sent.
            channel: a channel of one's own (of `grpc`, for asyncio of `grpc.aio`), such as one with interceptors; the
                address then only names it in messages, and encryption, keepalive and the retries of single calls are
                its own affair. Closed with the client.

        Raises:
            ValueError: an address, a token or a number that makes no sense.
        """
        self._connection = Connection(
            address=address, tls=tls, token=token, retries=retries, keepalive_s=keepalive_s
        )
        self._timeout_s = seconds("timeout_s", timeout_s, LONGEST_S)
        self._max_image_bytes = whole_number("max_image_bytes", max_image_bytes, 1)
        self._closed = False
        self._prepare(channel)

    @property
    def address(self) -> str:
        """The address as it was given."""
        return self._connection.name

    @abc.abstractmethod
    def _prepare(self, channel: ChannelT | None) -> None:
        """Opens the channel, unless one is given, or sees to it that it can be opened later."""

    def _seconds_of_call(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else seconds("timeout_s", timeout_s, LONGEST_S)

    def _stream_settings(
        self, options: RecognitionOptions | None, *, ordered: bool, look_ahead: int
    ) -> StreamSettings:
        config = pb.StreamingRecognizeConfig(options=options_to_proto(options), group_answers=True)
        return StreamSettings(
            config=pb.StreamingRecognizeRequest(config=config),
            address=self._connection.described,
            look_ahead=look_ahead,
            ordered=ordered,
            retries=self._connection.retries,
            max_image_bytes=self._max_image_bytes,
            timeout_s=self._timeout_s,
        )
