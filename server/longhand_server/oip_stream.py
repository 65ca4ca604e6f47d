"""A stream of Open Inference Protocol requests: answers in order, and a bound on the images between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from longhand.oip import inference_pb2 as oip
from longhand_server.errors import LonghandError

Infer = Callable[[oip.ModelInferRequest], Awaitable[oip.ModelStreamInferResponse]]


class OrderedInference:
    """Answers the requests of one stream, several at a time, each after those before it.

    The protocol's clients may leave requests without an id and tell answers by their order, so once one has failed
    none that came after it is answered.

    Args:
        infer: Answers one request.
        most_in_flight: Images that are worked on at a time. No request is read while there are so many; the last
            one read may go beyond it.
    """

    def __init__(self, infer: Infer, most_in_flight: int) -> None:
        self._infer = infer
        self._most_in_flight = most_in_flight
        self._in_flight = 0
        self._room = asyncio.Event()
        self._last = asyncio.Event()
        self._last.set()
        self._has_failed = False

    async def paced(
        self, requests: AsyncIterator[oip.ModelInferRequest]
    ) -> AsyncIterator[oip.ModelInferRequest]:
        """Yields the requests, each one once there is room."""
        async for request in requests:
            self._in_flight += self._size(request)
            taken = [request]
            del request  # it would stay in memory until the next one comes
            yield taken.pop()
            while self._in_flight >= self._most_in_flight:
                self._room.clear()
                await self._room.wait()

    async def answer(self, request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
        """Answers a request; called for each in the order in which they came."""
        before, done = self._last, asyncio.Event()
        self._last = done
        size = self._size(request)
        try:
            try:
                response = await self._infer(request)
            finally:
                self._in_flight -= size
                self._room.set()
                # Also where this one failed or was cancelled, its turn comes after the one before.
                await before.wait()
            if self._has_failed:
                raise LonghandError("a request before this one has failed, which has ended the stream")
        except Exception:
            self._has_failed = True
            raise
        finally:
            done.set()
        return response

    def _size(self, request: oip.ModelInferRequest) -> int:
        """The images that a request claims to hold; where that is not true it is refused at once."""
        claimed = request.inputs[0].shape[0] if request.inputs and request.inputs[0].shape else 1
        return max(1, claimed)
