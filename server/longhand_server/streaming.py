"""One bidirectional stream: images in, answers out in any order, with a bound on what is between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from longhand_server.errors import ShuttingDownError

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
    """

    def __init__(
        self,
        requests: AsyncIterator[RequestT],
        answer: Callable[[RequestT], Awaitable[ResponseT]],
        in_flight: int,
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

    async def answers(self) -> AsyncIterator[ResponseT]:
        """Yields the answers as they come, one by one; see :meth:`groups`."""
        async for group in self.groups(1):
            yield group[0]

    async def groups(self, most: int) -> AsyncIterator[list[ResponseT]]:
        """Yields what is ready, at least one and at most ``most`` answers at a time.

        Ends when the client has half-closed and has all of them.

        Raises:
            ShuttingDownError: :meth:`drain` was called; everything read before is answered.
            Exception: What ``answer`` raised, or the end that ``requests`` came to; answers to requests read
                before come first.
        """
        self._reader = asyncio.get_running_loop().create_task(self._read())
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
            if self._error is not None:
                raise self._error
        finally:
            self.cancel()
            # It knows the functions that it went through, and they this stream and the message that was at fault.
            self._error = None

    def drain(self) -> None:
        """Reads no further request; the stream ends once what was read is answered."""
        if not self._reading:
            return  # all of it will be answered, so that there is nothing to open again for
        self._stop_reading(ShuttingDownError("the server is stopping; open the stream again elsewhere"))

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
                task = asyncio.get_running_loop().create_task(self._answer(request))
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
