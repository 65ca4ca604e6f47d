"""Threads that work for one event loop.

An executor of the standard library takes two futures, a condition and three callbacks for each hand-over. Here a
thread takes an item from a queue and leaves the outcome in another, and wakes the loop only where it is not awake for
an outcome already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NoReturn, TypeAlias, TypeVar, TypeVarTuple

from longhand_server.errors import LonghandError

ResultT = TypeVar("ResultT")
ArgumentTs = TypeVarTuple("ArgumentTs")
_Task: TypeAlias = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers:
    """A fixed number of threads; belongs to the event loop that runs when it is made.

    Args:
        count: Threads, at least 1.
        name: What they are called in a debugger.

    Raises:
        LonghandError: The system does not let so many be started.
    """

    def __init__(self, count: int, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._outcomes: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._count = count
        for number in range(count):
            try:
                threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()
            except RuntimeError as error:
                self.close()
                raise LonghandError(
                    f"thread {number + 1} of {count} ({name}): {error}; the system's limit of processes "
                    "and threads is too low (ulimit -u, a container's pids limit)"
                ) from error

    def submit(
        self, function: Callable[[*ArgumentTs], ResultT], *arguments: *ArgumentTs
    ) -> asyncio.Future[ResultT]:
        """Calls a function in one of the threads, after all that were submitted before.

        Returns:
            Its result or its exception. Cancelling it does not stop the function.
        """
        future: asyncio.Future[ResultT] = self._loop.create_future()
        self._tasks.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Ends the threads once they have done what was submitted."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function, arguments = task
            try:
                self._outcomes.append((future, function(*arguments), None))
            except BaseException as error:
                self._outcomes.append((future, None, error))
            # Whoever waits for the next task must not keep the last one in memory.
            del task, future, function, arguments
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return

    def _deliver(self) -> None:
        # In this order: what is left behind after the last look wakes the loop again.
        self._waking = False
        while self._outcomes:
            future, result, error = self._outcomes.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


async def call_in_thread(function: Callable[[*ArgumentTs], ResultT], *arguments: *ArgumentTs) -> ResultT:
    """Calls a function in a thread of its own, which does not keep the process when that is to end.

    ``asyncio.to_thread`` does: the interpreter would wait for a disk that does not answer.
    """
    workers = Workers(1, "load")
    try:
        return await workers.submit(function, *arguments)
    finally:
        workers.close()


def end_process(code: int) -> NoReturn:
    """Ends the process at once, whatever a thread of :class:`Workers` still does.

    The interpreter's own end kills a thread that comes back from C++, where it loaded a model or read a line, in a
    way that C++ answers with SIGABRT.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever writes has been told of a full disk, and the code stands
            stream.flush()
    os._exit(code)
