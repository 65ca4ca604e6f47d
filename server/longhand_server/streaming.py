"""One bidirectional stream: images in, answers out in any order, with a bound on what is between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from longhand_server.errors import LonghandError, ShuttingDownError, StreamIdleError

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class AnswerStream(Generic[RequestT, ResponseT]):
    """Answers the requests of a stream, several at a time.

    A request counts as in flight from the moment before it is read until its answer is sent, so neither a
    client that sends quickly nor one that reads slowly makes the server's memory grow.

    Args:
        requests: The requests to come.
        answer: Answers one request. If it raises, no more is read and the stream ends with that error.
        in_flight: Most requests that are worked on, or whose answers wait to be sent.
        idle_s: Seconds without a request, and without one in flight, after which the stream ends; 0 = never.
    """

    def __init__(
        self,
        requests: AsyncIterator[RequestT],
        answer: Callable[[RequestT], Awaitable[ResponseT]],
        in_flight: int,
        idle_s: float = 0.0,
    ) -> None:
        self._requests = requests
        self._answer_one = answer
        self._slots = asyncio.Semaphore(in_flight)
        self._answers: asyncio.Queue[ResponseT | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._has_begun = False
        self._reading = True
        self._error: Exception | None = None
        self._in_flight = 0
        self._idle_s = idle_s
        self._idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def answers(self) -> AsyncIterator[ResponseT]:
        """Yields the answers as they come, one by one; see :meth:`groups`."""
        async for group in self.groups(1):
            yield group[0]

    async def groups(self, most: int) -> AsyncIterator[list[ResponseT]]:
        """Yields what is ready, at least one and at most ``most`` answers at a time.

        Ends when the client has half-closed and has all of them.

        Raises:
            LonghandError: :meth:`drain` or :meth:`end` was called; everything read before is answered.
            StreamIdleError: No request came for too long.
            Exception: What ``answer`` raised, or the end that ``requests`` came to; answers to requests read
                before come first.
        """
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read())
        self._idle_since = loop.time()
        if self._idle_s:
            self._end_if_idle(loop)
        try:
            while (answer := await self._answers.get()) is not None:
                group = [answer]
                while len(group) < most and not self._answers.empty():
                    if (answer := self._answers.get_nowait()) is None:
                        self._answers.put_nowait(None)  # the end, which the next turn sees
                        break
                    group.append(answer)
                yield group
                for _ in group:
                    self._slots.release()
                self._in_flight -= len(group)
                self._idle_since = loop.time()
            if self._error is not None:
                raise self._error
        finally:
            self.cancel()
            if self._timer is not None:
                self._timer.cancel()
            # It knows the functions that it went through, and they this stream and the message that was at fault.
            self._error = None

    def drain(self) -> None:
        """Reads no further request; the stream ends once what was read is answered."""
        self.end(ShuttingDownError("the server is stopping; open the stream again elsewhere"))

    def end(self, error: LonghandError) -> None:
        """Reads no further request; the stream ends with the error once what was read is answered."""
        if self._reading:  # otherwise all of it will be answered, so that the client misses nothing
            self._stop_reading(error)

    def cancel(self) -> None:
        """Drops everything: nobody listens any more."""
        if self._reader is not None:
            self._reader.cancel()
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        """Reads requests until their end, then waits for the answers and marks the end."""
        self._has_begun = True
        try:
            while self._error is None:
                await self._slots.acquire()
                request = await anext(self._requests)
                self._in_flight += 1
                task = asyncio.get_running_loop().create_task(self._answer(request))
                del request  # it would stay in memory until the next one comes
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (StopAsyncIteration, asyncio.CancelledError):
            pass  # the latter by cancel() or _stop_reading()
        except Exception as error:
            self._error = self._error or error
        self._reading = False
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._answers.put_nowait(None)

    def _end_if_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the stream if nothing has happened for too long, and looks again when that may be so."""
        # Of one whose requests have all come, or which is being ended, the end is near in any case.
        if not self._reading or self._error is not None:
            return
        left_s = self._idle_s - (0.0 if self._in_flight else loop.time() - self._idle_since)
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._end_if_idle, loop)
            return
        self._stop_reading(
            StreamIdleError(f"no image came for {self._idle_s:g} s; open the stream again when there is one")
        )

    async def _answer(self, request: RequestT) -> None:
        try:
            self._answers.put_nowait(await self._answer_one(request))
        except Exception as error:
            self._stop_reading(error)

    def _stop_reading(self, error: Exception) -> None:
        self._error = self._error or error
        # A reader that is only about to begin sees the error; cancelled before its first step, it would mark no end.
        if self._has_begun and self._reading and self._reader is not None:
            self._reader.cancel()
