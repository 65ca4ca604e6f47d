"""Every error Longhand raises on purpose, as one small tree.

Each class carries the name of the one gRPC status code it becomes and a stable ``reason`` in
SCREAMING_SNAKE_CASE, which clients may compare (the message is for people and may change).
This module imports nothing of gRPC, so training and offline tools can use it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LonghandError(Exception):
    """The root of the tree; also an unexpected failure inside the service.

    Args:
        message: One line for a person: what was got and what was needed.
        field: Path of the request field at fault, such as ``"options.beam_width"``.
        retry_after_ms: Milliseconds after which a retry may succeed; None where it never will.
        metadata: Further machine-readable facts, such as ``{"limit": "64"}``.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidRequestError(LonghandError):
    """A request whose values make no sense, whatever the image shows."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"


class InvalidImageError(InvalidRequestError):
    """Bytes that are no readable picture of a text line, or that break a limit."""

    reason = "INVALID_IMAGE"


class ModelNotFoundError(LonghandError):
    """A model name or version that this server does not serve."""

    code = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class OverloadedError(LonghandError):
    """The queue is full: nothing was done, and a later retry may succeed."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class RateLimitedError(OverloadedError):
    """This caller has used up its own share; others are still served."""

    reason = "RATE_LIMITED"


class DeadlineExceededError(LonghandError):
    """The caller's deadline passed before the answer was ready."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class ShuttingDownError(LonghandError):
    """The server is stopping and accepts no new work; another one may."""

    code = "UNAVAILABLE"
    reason = "SHUTTING_DOWN"


class StreamIdleError(LonghandError):
    """No image came on a stream for so long that its place is given to others; it may be opened again."""

    code = "UNAVAILABLE"
    reason = "IDLE"


class UnauthenticatedError(LonghandError):
    """No bearer token, or one that the server does not know."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class UnsupportedError(LonghandError):
    """A feature that this server or this model does not offer."""

    code = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class InvalidModelError(LonghandError):
    """A model bundle that is missing, damaged, or of an unknown format."""

    code = "FAILED_PRECONDITION"
    reason = "INVALID_MODEL"


class ConfigurationError(LonghandError):
    """A setting with an unknown key, or a value outside its range."""

    code = "FAILED_PRECONDITION"
    reason = "INVALID_CONFIGURATION"


class PortTakenError(LonghandError):
    """Another program listens on a port that is to be this server's; unlike a wrong setting it may go away."""


class RecognitionFailedError(LonghandError):
    """The network or the decoder failed on this item; the cause is in the server's log."""

    reason = "RECOGNITION_FAILED"
