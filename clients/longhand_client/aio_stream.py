"""One stream of images to the server, seen as an asynchronous iterator of outcomes.

Three tasks take part besides the caller's: one pulls images, one sends them, one takes the answers. Slots,
renewal of a broken stream and order work as in `stream.py`; a single thread needs no locks.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Protocol, TypeAlias, TypeVar

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand_client.errors import LonghandError, from_rpc_error
from longhand_client.images import ImageSource, image_bytes, several
from longhand_client.outbox import Outbox
from longhand_client.results import Outcome, outcome_from_proto
from longhand_client.stream import (
    Retries,
    SourceFailed,
    StreamSettings,
    Woken,
    ended_early,
    never_answered,
    no_answer,
)

_Item = TypeVar("_Item")
# Files that are read before other tasks have their turn.
_PULLED_AT_ONCE = 8
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


class _LostStatusError(LonghandError):
    """The server ended the call with a status that nobody knows any more."""


# An answer or a local failure; the error that ended the call; or None where the call ended well.
_Event: TypeAlias = "pb.StreamingRecognizeResponse | Outcome | SourceFailed | Woken | LonghandError | None"


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
        self._outbox = Outbox(settings.look_ahead)
        self._ready = asyncio.Event()
        # Set once the call has brought an answer, or where that need not be waited for.
        self._heard = asyncio.Event()
        self._heard.set()
        self._dormant = False  # no call is open until there is something to send
        self._failure: LonghandError | None = None

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

    def fail(self, error: LonghandError) -> None:
        """Ends the stream with that error, of which gRPC tells it nothing."""
        self._failure = error
        self._events.put_nowait(error)

    async def _as_they_come(self) -> AsyncGenerator[Outcome, None]:
        retries = Retries(self._settings)
        source_error: BaseException | None = None
        for generation in itertools.count():
            if self._failure is not None:  # it came between two calls
                raise self._failure
            self._outbox.restart()
            # An open call holds a place at the server, which others may need. The first one is opened in any case.
            self._dormant = generation > 0 and not self._outbox.ready()
            call = None if self._dormant else self._open_call()
            tasks = [
                asyncio.create_task(way(call)) for way in (self._send, self._receive) if call is not None
            ]
            try:
                while not isinstance(event := await self._next_event(), LonghandError | Woken | None):
                    if isinstance(event, Outcome):
                        yield event
                        continue
                    if isinstance(event, SourceFailed):
                        source_error = event.error  # what came before it is answered first
                        continue
                    self._heard.set()
                    arrived = self._outbox.arrived(event)
                    self._wake_sender()
                    for pending, answer in arrived:
                        retries.answered()
                        yield outcome_from_proto(pending.index, answer, pending.source)
            finally:
                if call is not None:
                    await _stop(call, tasks)
            if isinstance(event, Woken):
                continue
            # What a server that is stopping says behind the last answer is of no interest.
            if self._outbox.complete() and (event is None or not len(self._outbox)):
                break
            if isinstance(event, _LostStatusError) and self._heard.is_set():
                # With nothing to write while the server ends the call, its status arrives: worth one more try.
                self._heard.clear()
                if not self._settings.retries:
                    continue
            if event is None or isinstance(event, _LostStatusError):
                event = ended_early(self._settings.address)
            await asyncio.sleep(retries.pause_s(event, source_error))
        for pending in self._outbox.give_up():
            yield never_answered(pending)
        if source_error is not None:
            raise source_error

    async def _pull(self) -> None:
        try:
            for index in itertools.count():
                await self._slots.acquire()
                try:
                    source = await anext(self._source)
                except StopAsyncIteration:
                    break
                self._add(index, source)
        except BaseException as error:  # the caller's iterable failed: the caller gets its exception
            if is_being_cancelled():
                raise
            self._events.put_nowait(SourceFailed(error))
        self._outbox.close()
        self._wake_sender()

    def _add(self, index: int, source: ImageSource) -> None:
        try:
            # Reading a small local file takes less time than a change of thread.
            image = image_bytes(source, self._settings.max_image_bytes)
        except LonghandError as error:
            self._events.put_nowait(Outcome(index, None, error, source))
            return
        self._outbox.add(index, source, image)
        self._wake_sender()

    def _wake_sender(self) -> None:
        if not self._outbox.ready():
            return
        if self._dormant:
            self._dormant = False
            self._events.put_nowait(Woken())
        self._ready.set()

    async def _send(self, call: AsyncStreamCall) -> None:
        try:
            await call.write(self._settings.config)
            while True:
                while not self._outbox.ready():
                    self._ready.clear()
                    await self._ready.wait()
                request = self._outbox.take()
                if request is None:
                    break
                await call.write(request)
                await self._heard.wait()
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
                end = _LostStatusError(_LOST_STATUS)
        self._events.put_nowait(end)

    async def _next_event(self) -> _Event:
        begun = time.monotonic()
        while True:
            if not self._events.empty():
                return self._events.get_nowait()
            # Without images on their way it is the source that is slow, and that is its right; and who takes outcomes
            # slowly has not waited.
            silence_s = min(self._outbox.silence_s(), time.monotonic() - begun)
            left_s = self._settings.timeout_s - silence_s
            try:
                async with asyncio.timeout(max(left_s, 0.0)):
                    return await self._events.get()
            except TimeoutError:
                if left_s <= 0:
                    raise no_answer(self._settings, len(self._outbox)) from None


def is_being_cancelled() -> bool:
    """Whether somebody wants this task to end, where CancelledError can have come from what it awaits, too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
        for number, image in enumerate(several(images)):
            if number % _PULLED_AT_ONCE == 0:
                await asyncio.sleep(0)
            yield image
