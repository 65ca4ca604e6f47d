"""What can go wrong, as one small tree, mapped from gRPC codes and the server's error details.

LonghandError
├── InvalidRequestError        an option that makes no sense
│   └── InvalidImageError      no readable picture of a line, here or on the server
├── ModelNotFoundError         the server does not serve that model
├── OverloadedError            full for the moment; `retry_after_s` says when to come back
├── DeadlineExceededError      no answer within the time given
├── AuthenticationError        no token, or one that the server refuses
├── UnsupportedError           this server does not offer it
├── ServerUnavailableError     nobody answers at that address, or the server is stopping
├── ServerError                the server failed
└── ClientClosedError          this client was closed, before the call or while it was open
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

_DETAILS_KEY, _REQUEST_ID_KEY = "grpc-status-details-bin", "x-request-id"
# What gRPC says where no secure connection comes about, the more precise first, and what it means.
_TLS_FAILURES = {
    "certificate has expired": "the server's certificate has expired",
    "certificate is not yet valid": "the server's certificate is not valid yet; is this machine's clock right?",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not one that is trusted here",
    "Hostname Verification Check failed": "the server's certificate is for another name",
    "WRONG_VERSION_NUMBER": "the server there does not speak TLS",
    "Failed to create security handshaker": "the certificates or the key given here are unusable",
}
# What it says where the server hangs up at once, and where it speaks something else, such as HTTP/1.
_CLOSED = "Socket closed"
_NO_GRPC = "Failed parsing HTTP/2"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class LonghandError(Exception):
    """Root of everything this client raises on purpose.

    Attributes:
        message: one line for a person.
        code: name of the gRPC status code, such as "INVALID_ARGUMENT".
        reason: the server's stable name for the cause, such as "INVALID_IMAGE"; "TLS" where no secure connection came
            about; "" where there is none.
        field: path of the request field at fault, or None.
        retry_after_s: seconds after which the server invites a retry, or None.
        request_id: what the server's log calls the call that failed; "" where it never got there, and of an image
            that failed alone in a batch or a stream.
    """

    request_id = ""

    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequestError(LonghandError):
    """The request makes no sense to the server, whatever the image shows."""


class InvalidImageError(InvalidRequestError):
    """No readable picture of a text line."""


class ModelNotFoundError(LonghandError):
    """The server does not serve the model asked for."""


class OverloadedError(LonghandError):
    """The server is full for the moment, or this caller's share is used up."""


class DeadlineExceededError(LonghandError):
    """No answer within the time given."""


class AuthenticationError(LonghandError):
    """No token, or one that the server refuses."""


class UnsupportedError(LonghandError):
    """This server or this model does not offer what was asked."""


class ServerUnavailableError(LonghandError):
    """Nobody answers at that address, or the server is stopping."""


class ServerError(LonghandError):
    """The server failed; its log says why."""


class ClientClosedError(LonghandError):
    """This client was closed, before the call or while it was open."""


_CLASSES: dict[grpc.StatusCode, type[LonghandError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: AuthenticationError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
}


def from_status(status: status_pb2.Status) -> LonghandError:
    """Turns a google.rpc.Status (the outcome of one item) into an error.

    Args:
        status: a status whose code is not OK.

    Returns:
        The error, ready to raise.
    """
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status.details)


def client_closed() -> ClientClosedError:
    """The error of a call on a client that was closed."""
    return ClientClosedError("the client is closed", code="CANCELLED")


def from_rpc_error(error: grpc.RpcError, address: str) -> LonghandError:
    """Turns the failure of a whole call into an error.

    Args:
        error: what the stub raised.
        address: where the call went; named in the message when nobody answered.

    Returns:
        The error, ready to raise.
    """
    # What a stub raises is a call, too; the class itself promises nothing.
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return ServerError(str(error))
    metadata = dict(error.trailing_metadata() or ())
    status = metadata.get(_DETAILS_KEY)
    details = status_pb2.Status.FromString(status).details if isinstance(status, bytes) else ()
    known = _from_call(error.code(), error.details() or error.code().name, details, address)
    known.request_id = str(metadata.get(_REQUEST_ID_KEY, ""))
    return known


def _from_call(
    code: grpc.StatusCode, message: str, details: Collection[AnyMessage], address: str
) -> LonghandError:
    if code is grpc.StatusCode.UNAVAILABLE:
        cause = next((plain for sign, plain in _TLS_FAILURES.items() if sign in message), None)
        if cause is not None:
            message = f"no secure connection to {address}: {cause} ({message})"
            return ServerUnavailableError(message, code=code.name, reason="TLS")
        if details:  # the word of a Longhand server
            return _error(code, f"{address}: {message}", details)
        # gRPC names the last address that it tried behind two phrases that only its developers know.
        message = unquote(message.rpartition("last error: ")[2].removeprefix("UNKNOWN: "))
        if _CLOSED in message:
            message += ": it may ask for TLS, or for a certificate of this client's"
        fault = f"no Longhand server answers at {address}"
        if _NO_GRPC in message:
            fault = f"what answers at {address} is no Longhand server"
        message = f"{fault} ({message})"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        # gRPC itself refuses a message over the size limit; waiting would not help.
        return InvalidImageError(f"the image is too large for the server: {message}", code=code.name)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not details:
        message = f"no answer from {address} in the time given ({message})"
    if code is grpc.StatusCode.UNIMPLEMENTED and not details:
        message = f"what answers at {address} is no Longhand server, or an older one ({message})"
    if code is grpc.StatusCode.CANCELLED and "hannel closed" in message:
        return client_closed()
    return _error(code, message, details)


def _error(code: grpc.StatusCode, message: str, details: Iterable[AnyMessage]) -> LonghandError:
    reason, field, retry_after_s = "", None, None
    information = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in details:
        if detail.Unpack(information):
            reason = information.reason
        elif detail.Unpack(request) and request.field_violations:
            field = request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    kind = InvalidImageError if reason == "INVALID_IMAGE" else _CLASSES.get(code, ServerError)
    # Terminals obey control characters. A server may send any, and gRPC has told of memory behind a message's end.
    message = " ".join("".join(one if one.isprintable() else " " for one in message).split())
    return kind(message, code=code.name, reason=reason, field=field, retry_after_s=retry_after_s)
