"""What every call goes through: who asks, its id, its deadline, its status, its place in metrics and logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any, TypeAlias, cast

import grpc

from longhand_server import messages
from longhand_server.errors import (
    InvalidModelError,
    LonghandError,
    OverloadedError,
    RateLimitedError,
    ShuttingDownError,
    UnauthenticatedError,
)
from longhand_server.metrics import Metrics
from longhand_server.security import Caller, TokenStore
from longhand_server.streaming import AnswerStream
from longhand_server.tracing import CallSpan, Tracer

_LOG = logging.getLogger(__name__)
ACCESS_LOG = logging.getLogger("longhand_server.access")
REQUEST_ID_KEY = "x-request-id"
# The client's clock runs ahead of ours by the time that the call took to come here.
_DEADLINE_TOLERANCE_S = 0.1
# A reload of the tokens may raise the rate for which a stream waits.
_LONGEST_WAIT_S = 1.0
# When a place among the open calls may be free again.
_RETRY_MS = 1000
# Bytes of a status message.
_LONGEST_MESSAGE = 1_000
# What others may write into our log.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
# grpc's own class is not generic at run time.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Call:
    """One call or stream.

    Attributes:
        request_id: The client's ``x-request-id``, or one made up here; it is given back as trailing metadata.
        caller: Who asks, for fairness: a token's name, else the client's address.
        deadline: Event loop time of the client's deadline, seconds.
        images: Images received so far.
        span: Its place in a trace.
    """

    def __init__(
        self,
        request_id: str,
        caller: str,
        holder: Caller | None,
        deadline: float,
        draining: asyncio.Event,
    ) -> None:
        self.request_id = request_id
        self.caller = caller
        self.deadline = deadline
        self.images = 0
        self.span = CallSpan()
        self._holder = holder
        self._token = b"" if holder is None else holder.digest
        self._turn = asyncio.Lock()
        self._draining = draining

    def spend(self, images: int) -> None:
        """Counts images against the caller's rate limit.

        Raises:
            RateLimitedError: It is used up.
        """
        self.images += images
        if self._holder is not None:
            self._holder.spend(images, time.monotonic())

    async def await_turn(self, images: int = 1) -> None:
        """Counts images of a stream against the caller's rate limit, and waits until they may be read.

        A stream waits for one thing at a time, the streams of a caller take turns, and single calls come first.

        Raises:
            UnauthenticatedError: The token has been revoked.
            ShuttingDownError: The server stops meanwhile.
        """
        self.images += images
        if self._holder is None:
            return
        async with self._turn, self._holder.turn:
            while True:
                self.check_token()
                try:
                    self._holder.spend(images, time.monotonic(), leave=1)
                    return
                except RateLimitedError as error:
                    seconds = (error.retry_after_ms or 0) / 1000
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._draining.wait(), min(seconds, _LONGEST_WAIT_S))
                    raise ShuttingDownError("the server is stopping; send the image elsewhere")

    def check_token(self) -> None:
        """Raises UnauthenticatedError where the token that let the call in is not known any more."""
        if self._holder is not None and self._holder.digest != self._token:
            raise UnauthenticatedError("the token is not known here any more")

    def allowed_priority(self, wanted: int) -> int:
        """The priority that images get: who has a token goes before others only where its row says so."""
        return wanted if self._holder is None or self._holder.may_go_first else min(wanted, 0)

    @property
    def has_expired(self) -> bool:
        """Whether the client's deadline has passed, or all but."""
        return asyncio.get_running_loop().time() >= self.deadline - _DEADLINE_TOLERANCE_S


class _OpenCall:
    """What surrounds a call; a class, since contextlib's generators take several times as long."""

    __slots__ = ("_context", "_gate", "begun", "call", "method", "peer", "request_id", "span")

    def __init__(self, gate: CallGate, method: str, context: Context) -> None:
        self._gate = gate
        self._context = context
        self.method = method
        self.begun = time.perf_counter()
        # Asked for now: of a call that has ended gRPC's C core may be gone, and reading from it kills the process.
        self.peer = context.peer()
        self.request_id = ""
        self.span = CallSpan()
        self.call: Call | None = None

    async def __aenter__(self) -> Call:
        try:
            self.call = self._gate.begin(self, self._context)
        except Exception as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self.call

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        code, reason = "OK", ""
        try:
            if isinstance(error, Exception):
                known = as_known(error, self.request_id)
                code, reason = known.code, known.reason
                await _abort(self._context, known, self.request_id)  # raises what ends the call
            elif error is not None:  # asyncio.CancelledError, GeneratorExit
                # gRPC cancels a call whose deadline has passed, too.
                late = self.call is not None and self.call.has_expired
                code = reason = "DEADLINE_EXCEEDED" if late else "CANCELLED"
        finally:
            self._gate.end(self, code, reason)


class CallGate:
    """Lets calls in and sees them out.

    Args:
        metrics: Counts them.
        tracer: Traces them.
        tokens: The callers known, None where everybody may call.
        max_open: Most calls and streams that are open at a time.
        log_calls: Whether to log calls that succeed too.

    Attributes:
        draining: Set once no more calls are let in.
    """

    def __init__(
        self,
        metrics: Metrics,
        tracer: Tracer,
        tokens: TokenStore | None = None,
        *,
        max_open: int = 1000,
        log_calls: bool = False,
    ) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._tokens = tokens
        self._log_calls = log_calls
        # Ids made up here are unique among processes, and cheaper than a random one for each call.
        self._id_prefix = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)
        self._max_open = max_open
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: dict[AnswerStream[Any, Any], Call] = {}
        self.draining = asyncio.Event()

    async def drain(self) -> None:
        """Lets no more calls in and returns once those that are in have ended.

        Open streams take no more requests and end with UNAVAILABLE once those taken are answered.
        """
        self.draining.set()
        for stream in list(self._streams):
            stream.drain()
        await self._idle.wait()

    def end_revoked(self) -> None:
        """Ends the open streams whose tokens are not known any more, once what was read from them is answered."""
        for stream, call in list(self._streams.items()):
            try:
                call.check_token()
            except UnauthenticatedError as error:
                stream.end(error)

    @contextlib.contextmanager
    def stream(self, stream: AnswerStream[Any, Any], call: Call, context: Context) -> Iterator[None]:
        """Surrounds the answering of a stream.

        It ends early where :meth:`drain` is called, its token is revoked, or the client leaves.
        """
        self._streams[stream] = call
        # A client that cancels while nothing is being sent is noticed here and nowhere else.
        context.add_done_callback(lambda _: stream.cancel())  # type: ignore[arg-type]
        try:
            yield
        finally:
            del self._streams[stream]

    def call(self, method: str, context: Context) -> _OpenCall:
        """Surrounds a call, as an asynchronous context manager: an exception inside it becomes its status."""
        return _OpenCall(self, method, context)

    def begin(self, opened: _OpenCall, context: Context) -> Call:
        """Counts a call and lets it in.

        Raises:
            ShuttingDownError, OverloadedError, UnauthenticatedError: It may not come in.
        """
        self._open += 1
        self._idle.clear()
        self._metrics.call_began()
        metadata = dict(context.invocation_metadata() or ())
        opened.request_id = self._request_id(metadata.get(REQUEST_ID_KEY))
        opened.span = self._tracer.begin(opened.method, opened.request_id, metadata)
        call = self._let_in(metadata, opened, context)
        call.span = opened.span
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return call

    def end(self, opened: _OpenCall, code: str, reason: str) -> None:
        """Counts and logs the end of a call, whether it was let in or not."""
        self._open -= 1
        if self._open == 0:
            self._idle.set()
        seconds, call = time.perf_counter() - opened.begun, opened.call
        self._metrics.call_ended(opened.method, code, reason, seconds)
        opened.span.end(code, reason, call.images if call else 0)
        if self._log_calls or code != "OK":
            self._log(opened, code, reason, seconds)

    def _let_in(self, metadata: dict[str, Any], opened: _OpenCall, context: Context) -> Call:
        if self.draining.is_set():
            raise ShuttingDownError("the server is stopping; ask another one", retry_after_ms=100)
        if self._open > self._max_open:
            raise OverloadedError(
                f"{self._open - 1} calls are open already, at most {self._max_open} may be",
                retry_after_ms=_RETRY_MS,
                metadata={"max_calls": str(self._max_open)},
            )
        holder = None if self._tokens is None else self._tokens.authenticate(metadata.get("authorization"))
        # Its stubs do not say so, but without a deadline gRPC gives None.
        remaining = cast(float | None, context.time_remaining())
        deadline = math.inf if remaining is None else asyncio.get_running_loop().time() + remaining
        name = holder.name if holder else caller_of(opened.peer)
        return Call(opened.request_id, name, holder, deadline, self.draining)

    def _request_id(self, given: str | bytes | None) -> str:
        if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._id_prefix}-{next(self._numbers)}"

    def _log(self, opened: _OpenCall, code: str, reason: str, seconds: float) -> None:
        call = opened.call
        # Who was turned away; where callers have tokens, that is not known to be any of them.
        stranger = caller_of(opened.peer) if self._tokens is None else ""
        ACCESS_LOG.log(
            logging.INFO if code in ("OK", "CANCELLED") else logging.WARNING,
            "%s %s",
            opened.method,
            code,
            extra={
                "fields": {
                    "method": opened.method,
                    "code": code,
                    "reason": reason,
                    "request_id": opened.request_id,
                    "caller": call.caller if call else stranger,
                    "peer": opened.peer,
                    "images": call.images if call else 0,
                    "ms": round(seconds * 1000, 3),
                }
            },
        )


def as_known(error: Exception, request_id: str) -> LonghandError:
    """The error as one of ours; what nobody foresaw is logged and told without its text."""
    if isinstance(error, LonghandError):
        if error.code == "INTERNAL":
            _LOG.error("%s (request %s)", error, request_id, exc_info=error.__cause__ or error)
        if isinstance(error, InvalidModelError):  # it names files of the server's
            _LOG.error("a model cannot be loaded (request %s): %s", request_id, error)
            return InvalidModelError("the model cannot be loaded; the server's log says why")
        return error
    _LOG.error("unexpected failure (request %s)", request_id, exc_info=error)
    return LonghandError("unexpected failure in the server; its log says more")


def caller_of(peer: str) -> str:
    """Whom gRPC's name of a client's end stands for: its address, without the port that each connection has."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


async def _abort(context: Context, error: LonghandError, request_id: str) -> None:
    # Clients take 8 KiB of metadata, which hold the message twice, spelt out and encoded.
    encoded = error.message.encode()
    if len(encoded) > _LONGEST_MESSAGE:
        error.message = encoded[:_LONGEST_MESSAGE].decode(errors="ignore") + "…"
    trailers: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", messages.write_status(error).SerializeToString()),
        (REQUEST_ID_KEY, request_id),
    ]
    if error.retry_after_ms is not None:
        trailers.append(("grpc-retry-pushback-ms", str(error.retry_after_ms)))
    try:
        await context.abort(grpc.StatusCode[error.code], error.message, tuple(trailers))
    except grpc.aio.AbortError as ended:
        # gRPC keeps it as long as the call, and it knows the handler, which knows the call: a circle that would hold
        # request and image in memory until the next full collection. It is broken once the handler has ended.
        asyncio.get_running_loop().call_soon(_forget_origin, ended)
        raise


def _forget_origin(error: BaseException) -> None:
    error.__traceback__ = error.__context__ = None
