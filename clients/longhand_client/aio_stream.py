"""One stream of images to the server, seen as an asynchronous iterator of outcomes.

Three tasks take part besides the caller's: one pulls images, one sends them, one takes the answers. Slots,
renewal of a broken stream and order work as in `stream.py`; a single thread needs no locks.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Protocol, TypeAlias, TypeVar

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand_client.errors import (
    DeadlineExceededError,
    LonghandError,
    ServerError,
    ServerUnavailableError,
    from_rpc_error,
)
from longhand_client.images import ImageSource, image_bytes
from longhand_client.results import Outcome, outcome_from_proto
from longhand_client.stream import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    Pending,
    StreamSettings,
    ended_early,
)

_Item = TypeVar("_Item")
# A few, so that pulling and sending change turns less often than at each image.
_MOST_UNSENT = 8
# What grpc.aio says where a write meets a call that the server has just ended; the server's status is lost.
_LOST_STATUS = "Internal error from Core"


class AsyncStreamCall(Protocol):
    """The part of gRPC's bidirectional call that is used here."""

    async def write(self, request: pb.StreamingRecognizeRequest) -> None:
        """Sends one message, waiting while the server's window is full."""

    async def done_writing(self) -> None:
        """Says that no more messages follow."""

    def cancel(self) -> bool:
        """Ends the call at once."""

    def __aiter__(self) -> AsyncIterator[pb.StreamingRecognizeResponse]: ...


OpenCall: TypeAlias = Callable[[], AsyncStreamCall]
# An answer or a local failure; the error that ended the call; or None where the call ended well.
_Event: TypeAlias = "pb.StreamingRecognizeResponse | Outcome | BaseException | None"


class AsyncRecognitionStream:
    """Sends images and yields their outcomes; see `AsyncRecognizerClient.recognize_stream`."""

    def __init__(
        self,
        open_call: OpenCall,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        settings: StreamSettings,
    ) -> None:
        self._open_call = open_call
        self._source = _as_async(images)
        self._settings = settings
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._slots = asyncio.Semaphore(settings.look_ahead)
        self._pending: dict[str, Pending] = {}
        # Pulled and not sent; None stands for the end of the source.
        self._unsent: asyncio.Queue[Pending | None] = asyncio.Queue(_MOST_UNSENT)
        self._end_seen = False
        self._exhausted = False

    async def outcomes(self) -> AsyncGenerator[Outcome, None]:
        """Yields one outcome for each image; closing the generator ends the stream."""
        waiting: dict[int, Outcome] = {}
        next_index = 0
        # One task asks the source all the time, whatever becomes of the calls: so the caller's iterator is never cut
        # short in the middle of a step.
        puller = asyncio.create_task(self._pull())
        try:
            async with aclosing(self._as_they_come()) as arrived:
                async for outcome in arrived:
                    waiting[outcome.index] = outcome
                    if not self._settings.ordered:
                        next_index = outcome.index
                    while next_index in waiting:
                        self._slots.release()
                        yield waiting.pop(next_index)
                        next_index += 1
        finally:
            puller.cancel()
            await asyncio.wait({puller})

    async def _as_they_come(self) -> AsyncGenerator[Outcome, None]:
        failures = 0
        while True:
            call = self._open_call()
            tasks = [asyncio.create_task(self._send(call)), asyncio.create_task(self._receive(call))]
            try:
                while not isinstance(event := await self._next_event(), BaseException | None):
                    outcome = self._outcome_of(event)
                    if outcome is not None:
                        failures = 0
                        yield outcome
            finally:
                await _stop(call, tasks)
            if event is None and self._exhausted:
                break
            if event is None:
                event = ended_early(self._settings.address)
            if not isinstance(event, ServerUnavailableError) or failures >= self._settings.retries:
                raise event
            await asyncio.sleep(min(FIRST_BACKOFF_S * 2**failures, LONGEST_BACKOFF_S))
            failures += 1
        for pending in self._pending.values():
            error = ServerError(f"the server ended the stream without an answer for image {pending.index}")
            yield Outcome(pending.index, None, error, pending.source)

    async def _pull(self) -> None:
        try:
            for index in itertools.count():
                await self._slots.acquire()
                try:
                    source = await anext(self._source)
                except StopAsyncIteration:
                    break
                await self._add(index, source)
            self._exhausted = True
            await self._unsent.put(None)
        except Exception as error:  # the caller's iterable failed: the caller gets its exception
            self._events.put_nowait(error)

    async def _add(self, index: int, source: ImageSource) -> None:
        try:
            # Reading a small local file takes less time than a change of thread.
            image = image_bytes(source, self._settings.max_image_bytes)
        except LonghandError as error:
            self._events.put_nowait(Outcome(index, None, error, source))
            return
        message = pb.StreamingRecognizeImage(request_id=str(index), image=image)
        pending = Pending(index, source, pb.StreamingRecognizeRequest(image=message))
        await self._unsent.put(pending)
        # No step lies between the two, so what is unsent is always among the unanswered.
        self._pending[str(index)] = pending

    async def _send(self, call: AsyncStreamCall) -> None:
        again = deque(self._pending.values())
        while not self._unsent.empty():
            self._end_seen |= self._unsent.get_nowait() is None
        try:
            await call.write(self._settings.config)
            while again:
                await call.write(again.popleft().request)
            while not self._end_seen:
                following = await self._unsent.get()
                if following is None:
                    self._end_seen = True
                else:
                    await call.write(following.request)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the receiver learns why the call ended

    async def _receive(self, call: AsyncStreamCall) -> None:
        end: LonghandError | None = None
        try:
            async for response in call:
                self._events.put_nowait(response)
        except grpc.RpcError as error:
            end = from_rpc_error(error, self._settings.address)
            if end.message == _LOST_STATUS:
                end = ended_early(self._settings.address)
        self._events.put_nowait(end)

    async def _next_event(self) -> _Event:
        while True:
            if not self._events.empty():
                return self._events.get_nowait()
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    return await self._events.get()
            except TimeoutError:
                # Without images on their way it is the source that is slow, and that is its right.
                if self._pending:
                    raise DeadlineExceededError(
                        f"no answer from {self._settings.address} within {self._settings.timeout_s:g} s, "
                        f"{len(self._pending)} images unanswered",
                        code="DEADLINE_EXCEEDED",
                    ) from None

    def _outcome_of(self, event: pb.StreamingRecognizeResponse | Outcome) -> Outcome | None:
        if isinstance(event, Outcome):
            return event
        pending = self._pending.pop(event.request_id, None)
        return None if pending is None else outcome_from_proto(pending.index, event, pending.source)


async def _stop(call: AsyncStreamCall, tasks: list[asyncio.Task[None]]) -> None:
    call.cancel()
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


async def _as_async(images: Iterable[_Item] | AsyncIterable[_Item]) -> AsyncIterator[_Item]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
