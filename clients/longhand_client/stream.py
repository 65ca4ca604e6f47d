"""One stream of images to the server, seen as an iterator of outcomes (synchronous).

Four threads take part: one pulls the caller's images, gRPC's own sends them, a reader takes the answers, and the
caller's takes the outcomes. An image holds one of `look_ahead` slots from the moment it is pulled until its outcome
is handed over, so memory stays bounded whatever is slow: the source, the network, the server or the caller.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand_client.checks import whole_number
from longhand_client.errors import (
    DeadlineExceededError,
    LonghandError,
    OverloadedError,
    ServerError,
    ServerUnavailableError,
    from_rpc_error,
)
from longhand_client.images import ImageSource, image_bytes, several
from longhand_client.outbox import Outbox, Pending
from longhand_client.results import Outcome, outcome_from_proto

_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 2.0
# Why a server ends a stream that has had no image for long.
_IDLE = "IDLE"


class StreamCall(Protocol):
    """The part of gRPC's bidirectional call that is used here."""

    def __iter__(self) -> Iterator[pb.StreamingRecognizeResponse]: ...

    def cancel(self) -> object:
        """Ends the call at once."""


OpenCall: TypeAlias = Callable[[Iterator[pb.StreamingRecognizeRequest]], StreamCall]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream behaves.

    Attributes:
        config: the first message.
        address: named in error messages.
        look_ahead: images that may be on their way at once.
        ordered: outcomes in the order of the images, or as they come.
        retries: how often in a row the stream is opened again without an answer in between; where it has had one
            before, for `timeout_s` from when it broke, since a server that restarts needs that. 0 = never.
        max_image_bytes: larger images are refused before they are sent.
        timeout_s: seconds without any answer, while images wait, after which the stream has failed.
    """

    config: pb.StreamingRecognizeRequest
    address: str
    look_ahead: int
    ordered: bool
    retries: int
    max_image_bytes: int
    timeout_s: float

    def __post_init__(self) -> None:
        whole_number("look_ahead", self.look_ahead, 1)


@dataclass(frozen=True, slots=True)
class _Closed:
    """The call has ended; another is opened only then."""

    error: LonghandError | None


@dataclass(frozen=True, slots=True)
class Woken:
    """No call is open, and now there is something to send."""


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """The caller's iterable raised."""

    error: BaseException


_Event: TypeAlias = "pb.StreamingRecognizeResponse | Outcome | _Closed | Woken | SourceFailed"


def no_answer(settings: StreamSettings, unanswered: int) -> DeadlineExceededError:
    """The error of a stream on which nothing came for too long."""
    return DeadlineExceededError(
        f"no answer from {settings.address} within {settings.timeout_s:g} s, images unanswered: {unanswered}",
        code="DEADLINE_EXCEEDED",
    )


def never_answered(pending: Pending) -> Outcome:
    """The outcome of an image that the server passed over, though it ended the stream well."""
    error = ServerError(f"the server ended the stream without an answer for image {pending.index}")
    return Outcome(pending.index, None, error, pending.source)


def ended_early(address: str) -> ServerUnavailableError:
    """The error of a stream that the server ended, without a word, before all images were sent."""
    return ServerUnavailableError(f"the server at {address} ended the stream early", code="UNAVAILABLE")


class Retries:
    """Decides whether and when a stream that broke is opened again."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._known = False  # whether there ever was an answer
        self._failures = 0  # in a row
        self._broken_at = 0.0
        self._opened_at = 0.0

    def answered(self) -> None:
        """Says that an answer came."""
        self._known, self._failures = True, 0

    def pause_s(self, error: LonghandError, source_error: BaseException | None) -> float:
        """Seconds to wait before the stream is opened again.

        Args:
            error: what it ended with.
            source_error: what the caller's iterable has raised, if it has.

        Raises:
            LonghandError: The error itself, where trying again would not help or was done often enough.
            BaseException: What the caller's iterable had raised before, if it had, instead.
        """
        if error.reason == _IDLE:  # nothing was lost by it
            return 0.0
        now = time.monotonic()
        # A call that stood for so long was a good one, though nobody had an image for it.
        if now - self._opened_at > self._settings.timeout_s:
            self._failures = 0
        if not self._failures:
            self._broken_at = now
        retriable = self._settings.retries > 0 and isinstance(error, ServerUnavailableError | OverloadedError)
        # A server that has answered is known to be one, and is back soon; one that never did may not be there at all.
        patient = self._known and now - self._broken_at < self._settings.timeout_s
        if not retriable or (self._failures >= self._settings.retries and not patient):
            if source_error is not None:
                raise source_error from error
            raise error
        pause_s = min(_FIRST_BACKOFF_S * 2.0 ** min(self._failures, 10), _LONGEST_BACKOFF_S)
        pause_s = max(pause_s, error.retry_after_s or 0.0)
        self._failures += 1
        self._opened_at = now + pause_s
        return pause_s


class RecognitionStream:
    """Sends images and yields their outcomes; see `RecognizerClient.recognize_stream`."""

    def __init__(self, open_call: OpenCall, images: Iterable[ImageSource], settings: StreamSettings) -> None:
        self._open_call = open_call
        self._source = enumerate(several(images))
        self._settings = settings
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._slots = threading.Semaphore(settings.look_ahead)
        self._outbox = Outbox(settings.look_ahead)
        self._generation = 0
        self._ended = False
        self._dormant = False  # no call is open until there is something to send
        self._changed = threading.Condition()  # guards the outbox and the generation
        self._call: StreamCall | None = None

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Yields one outcome for each image; closing the generator ends the stream."""
        waiting: dict[int, Outcome] = {}
        next_index = 0
        # One thread asks the source all the time, whatever becomes of the calls.
        threading.Thread(target=self._pull, name="longhand-stream-source", daemon=True).start()
        try:
            for outcome in self._as_they_come():
                if not self._settings.ordered:
                    self._slots.release()
                    yield outcome
                    continue
                waiting[outcome.index] = outcome
                while next_index in waiting:
                    self._slots.release()
                    yield waiting.pop(next_index)
                    next_index += 1
        finally:
            self._end()

    def _as_they_come(self) -> Iterator[Outcome]:
        self._start()
        retries = Retries(self._settings)
        source_error: BaseException | None = None
        while True:
            event = self._next_event()
            if isinstance(event, Outcome):
                yield event
            elif isinstance(event, pb.StreamingRecognizeResponse):
                with self._changed:
                    arrived = self._outbox.arrived(event)
                    self._wake_sender()
                for pending, answer in arrived:
                    retries.answered()
                    yield outcome_from_proto(pending.index, answer, pending.source)
            elif isinstance(event, SourceFailed):
                source_error = event.error  # what came before it is answered first
            elif isinstance(event, Woken):
                self._start()
            else:
                # What a server that is stopping says behind the last answer is of no interest.
                if self._outbox.complete() and (event.error is None or not len(self._outbox)):
                    for pending in self._outbox.give_up():
                        yield never_answered(pending)
                    if source_error is not None:
                        raise source_error
                    return
                error = event.error or ended_early(self._settings.address)
                time.sleep(retries.pause_s(error, source_error))
                self._start()

    def _next_event(self) -> _Event:
        begun = time.monotonic()
        while True:
            # Without images on their way it is the source that is slow, and that is its right; and who takes outcomes
            # slowly has not waited.
            with self._changed:
                silence_s = min(self._outbox.silence_s(), time.monotonic() - begun)
            left_s = self._settings.timeout_s - silence_s
            try:
                return self._events.get(timeout=max(left_s, 0.0))
            except queue.Empty:
                if left_s <= 0:
                    raise no_answer(self._settings, len(self._outbox)) from None

    def _start(self) -> None:
        with self._changed:
            self._generation += 1
            generation = self._generation
            self._outbox.restart()
            self._changed.notify_all()
            # An open call holds a place at the server, which others may need. The first one is opened in any case.
            self._dormant = generation > 1 and not self._outbox.ready()
            if self._dormant:
                return
        self._call = self._open_call(self._requests(generation))
        threading.Thread(target=self._read, args=(self._call,), name="longhand-stream", daemon=True).start()

    def _end(self) -> None:
        if sys.is_finalizing():
            return  # the program ends with the stream open, and its threads are gone, with the locks that they held
        with self._changed:
            self._ended = True
            self._generation += 1
            self._changed.notify_all()
        if self._call is not None:
            self._call.cancel()
        # Wakes the source's thread if it waits for a slot.
        self._slots.release()

    def _read(self, call: StreamCall) -> None:
        error: LonghandError | None = None
        try:
            for response in call:
                self._events.put(response)
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error, self._settings.address)
        self._events.put(_Closed(error))

    def _requests(self, generation: int) -> Iterator[pb.StreamingRecognizeRequest]:
        yield self._settings.config
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._generation != generation or self._outbox.ready())
                request = self._outbox.take() if self._generation == generation else None
            if request is None:
                return
            yield request

    def _pull(self) -> None:
        try:
            while True:
                self._slots.acquire()
                if self._ended:
                    return
                try:
                    index, source = next(self._source)
                except StopIteration:
                    break
                try:
                    image = image_bytes(source, self._settings.max_image_bytes)
                except LonghandError as error:
                    self._events.put(Outcome(index, None, error, source))
                    continue
                with self._changed:
                    self._outbox.add(index, source, image)
                    self._wake_sender()
        except BaseException as error:  # the caller's iterable failed: the caller gets its exception
            self._events.put(SourceFailed(error))
        with self._changed:
            self._outbox.close()
            self._wake_sender()

    def _wake_sender(self) -> None:
        if not self._outbox.ready():
            return
        if self._dormant:
            self._dormant = False
            self._events.put(Woken())
        self._changed.notify()
