"""Client of the Longhand service: handwritten line images in, their text out.

Example:
    >>> from longhand_client import RecognizerClient
    >>> with RecognizerClient(address) as client:
    ...     transcription = client.recognize("examples/sample_line.png")
    >>> 0.0 <= transcription.confidence <= 1.0
    True
"""

from longhand_client._version import __version__
from longhand_client.aio import AsyncRecognizerClient
from longhand_client.client import RecognizerClient
from longhand_client.connection import DEFAULT_ADDRESS, Tls
from longhand_client.errors import (
    AuthenticationError,
    ClientClosedError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    LonghandError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    ServerUnavailableError,
    UnsupportedError,
)
from longhand_client.images import ImageSource
from longhand_client.options import RecognitionOptions
from longhand_client.results import Alternative, Model, Outcome, Span, Timings, Transcription

__all__ = [
    "DEFAULT_ADDRESS",
    "Alternative",
    "AsyncRecognizerClient",
    "AuthenticationError",
    "ClientClosedError",
    "DeadlineExceededError",
    "ImageSource",
    "InvalidImageError",
    "InvalidRequestError",
    "LonghandError",
    "Model",
    "ModelNotFoundError",
    "Outcome",
    "OverloadedError",
    "RecognitionOptions",
    "RecognizerClient",
    "ServerError",
    "ServerUnavailableError",
    "Span",
    "Timings",
    "Tls",
    "Transcription",
    "UnsupportedError",
    "__version__",
]
