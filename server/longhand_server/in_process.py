"""The service inside this process: a gRPC channel that leads to a servicer, without a port or a socket.

Generated stubs, and clients built on them, work over it as over any channel: same requests, same answers, same status
codes and error details. Messages are handed over as they are, so nothing is serialised.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, cast

import grpc
from grpc.aio import AioRpcError, Metadata

from longhand.v1 import recognition_pb2_grpc
from longhand_server.calls import CallGate, Context
from longhand_server.config import ServerConfig
from longhand_server.metrics import Metrics
from longhand_server.registry import ModelRegistry
from longhand_server.servicer import RecognitionServicer
from longhand_server.tracing import make_tracer

_Result = TypeVar("_Result")
# grpc's own class is not generic at run time.
_Handlers: TypeAlias = "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"


class InProcessChannel(grpc.Channel):
    """Loads the models and answers ``longhand.v1.RecognitionService`` in a thread of its own. Thread-safe.

    Other services and methods end with UNIMPLEMENTED, as on a server that lacks them.

    Args:
        config: Which models, on what device, within what limits; where to listen and whom to trust do not matter.

    Raises:
        InvalidModelError: A model is missing or damaged.
        ConfigurationError: The device is not there.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="longhand-in-process", daemon=True
        )
        self._thread.start()
        self._calls: set[asyncio.Task[Any] | None] = set()
        # A call begins before the end begins, or not at all: later nobody would end it.
        self._beginning = threading.Lock()
        self._closed = False
        self._registry: ModelRegistry | None = None
        try:
            self._handlers = self._begin(lambda: self._open(config)).result()
        except BaseException:
            self.close()
            raise

    async def _open(self, config: ServerConfig) -> _Handlers:
        metrics = Metrics()
        self._registry = ModelRegistry(config, metrics)
        await self._registry.load()
        gate = CallGate(metrics, make_tracer(""), max_open=config.listen.max_calls)
        table = _HandlerTable()
        recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(
            RecognitionServicer(self._registry, config.listen, gate, metrics), cast(grpc.Server, table)
        )
        return table.handlers

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """A call of one request and one answer; see :class:`grpc.Channel`."""

        def call(request: object, timeout: float | None = None, metadata: Any = None, **_: Any) -> Any:
            behaviour, context = self._behaviour(method, "unary_unary"), _Context(metadata, timeout)
            begun = self._begin(lambda: asyncio.wait_for(behaviour(request, context), timeout))
            try:
                return begun.result()
            except TimeoutError:
                raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
            except CancelledError:
                raise _error(grpc.StatusCode.CANCELLED, "Channel closed!") from None

        return call

    def stream_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """A call of many requests and many answers; see :class:`grpc.Channel`."""

        def call(
            requests: Iterable[object], timeout: float | None = None, metadata: Any = None, **_: Any
        ) -> _StreamCall:
            behaviour = self._behaviour(method, "stream_stream")
            return _StreamCall(self._loop, self._begin, behaviour, requests, _Context(metadata, timeout))

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """The service has no such call: UNIMPLEMENTED."""
        return lambda *_, **__: self._behaviour(method, "unary_stream")

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """The service has no such call: UNIMPLEMENTED."""
        return lambda *_, **__: self._behaviour(method, "stream_unary")

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """Tells the callback once that the channel is ready; it stays so."""
        callback(grpc.ChannelConnectivity.READY)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Nothing more would have been told."""

    def close(self) -> None:
        """Ends what is still on its way, and the workers."""
        with self._beginning:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        calls = [task for task in self._calls if task is not None]
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if self._registry is not None:
            await self._registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _behaviour(self, method: str, kind: str) -> Callable[..., Any]:
        """The servicer's method.

        Raises:
            AioRpcError: UNIMPLEMENTED.
        """
        behaviour = getattr(self._handlers.get(method), kind, None)
        if behaviour is None:
            raise _error(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return cast(Callable[..., Any], behaviour)

    def _begin(self, work: Callable[[], Coroutine[Any, Any, _Result]]) -> Future[_Result]:
        """Begins something in the loop.

        Raises:
            ValueError: The channel is closed.
        """
        with self._beginning:
            if self._closed:
                raise ValueError("Cannot invoke RPC: Channel closed!")
            return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)

    async def _tracked(self, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        task = asyncio.current_task()
        self._calls.add(task)
        try:
            return await work()
        finally:
            self._calls.discard(task)


class _HandlerTable:
    """Takes the methods of a service from its generated code, in a server's stead."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_registered_method_handlers(self, service: str, handlers: _Handlers) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        pass  # the same methods once more, in an older form


class _Context:
    """What the servicer asks its call about; see :class:`grpc.aio.ServicerContext`."""

    def __init__(self, metadata: Any, timeout: float | None) -> None:
        self._metadata = metadata
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._callbacks: list[Callable[[Any], None]] = []

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return "in-process"

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def set_trailing_metadata(self, metadata: Any) -> None:
        pass  # only what comes with an error is looked at

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        raise _error(code, details, trailers)

    def done(self) -> None:
        for callback in self._callbacks:
            callback(self)


class _StreamCall:
    """One open stream: an iterator of answers that can be cancelled.

    The requests are pulled by a thread of their own, since their iterator may block; each is pulled when the one
    before has been taken, so a servicer that reads slowly slows the source down.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        begin: Callable[[Callable[[], Coroutine[Any, Any, None]]], Future[None]],
        behaviour: Callable[..., AsyncIterator[object]],
        requests: Iterable[object],
        context: _Context,
    ) -> None:
        self._loop = loop
        self._context = context
        self._inbox: asyncio.Queue[object] = asyncio.Queue()
        self._taken = threading.Semaphore(1)
        self._over = False
        self._source_error: Exception | None = None
        self._answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._work = begin(lambda: self._answer(behaviour, context.time_remaining()))
        threading.Thread(target=self._pull, args=(requests,), name="longhand-requests", daemon=True).start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        answer = self._answers.get()
        if answer is not None and not isinstance(answer, Exception):
            return answer
        self._answers.put(answer)  # whoever asks again gets the same end
        raise StopIteration if answer is None else answer

    def cancel(self) -> bool:
        """Ends the call at once."""
        return self._work.cancel()

    async def _answer(self, behaviour: Callable[..., AsyncIterator[object]], timeout: float | None) -> None:
        end: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                async for answer in behaviour(self._requests(), cast(Context, self._context)):
                    self._answers.put(answer)
        except TimeoutError:
            end = _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        except asyncio.CancelledError:
            end = self._source_error or _error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
            raise
        except Exception as error:
            end = error
        finally:
            self._over = True
            self._taken.release()
            self._context.done()
            self._answers.put(end)

    async def _requests(self) -> AsyncIterator[object]:
        while (request := await self._inbox.get()) is not None:
            self._taken.release()
            yield request

    def _pull(self, requests: Iterable[object]) -> None:
        try:
            for request in requests:
                self._taken.acquire()
                if self._over:
                    return
                self._hand_over(request)
        except Exception as error:
            self._source_error = _error(grpc.StatusCode.UNKNOWN, f"Exception iterating requests: {error!r}")
            self.cancel()
        self._hand_over(None)

    def _hand_over(self, request: object) -> None:
        with contextlib.suppress(RuntimeError):  # the channel is closed: nobody waits for it
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, request)


def _error(
    code: grpc.StatusCode, details: str, trailers: Iterable[tuple[str, str | bytes]] = ()
) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailers), details)
