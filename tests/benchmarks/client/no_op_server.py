"""A server that does nothing, so that only the client is measured: python no_op_server.py PORT [PLACES SECONDS].

It answers at once; or it has so many places, on each of which a line takes so many seconds, without using the CPU.
Then the description of its model is the share of the time, since that was last asked, that the places were taken.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_server.streaming import AnswerStream

RESULT = pb.RecognitionResult(text="as long as a usual line of handwriting is", confidence=0.9, model="none")


class NoOp(rpc.RecognitionServiceServicer):
    """Gives the same text for everything."""

    def __init__(self, places: int = 0, seconds: float = 0.0) -> None:
        self._places = asyncio.Semaphore(places) if places else None
        self._count = places
        self._seconds = seconds
        self._forget()

    def _forget(self) -> None:
        self._first, self._last, self._busy = math.inf, 0.0, 0.0

    async def _work(self) -> None:
        if self._places is not None:
            async with self._places:
                begun = time.perf_counter()
                await asyncio.sleep(self._seconds)
                self._last = time.perf_counter()
                self._first = min(self._first, begun)
                self._busy += self._last - begun

    async def Recognize(self, request: pb.RecognizeRequest, context: Any) -> pb.RecognizeResponse:
        await self._work()
        return pb.RecognizeResponse(result=RESULT)

    async def BatchRecognize(
        self, request: pb.BatchRecognizeRequest, context: Any
    ) -> pb.BatchRecognizeResponse:
        outcomes = [
            pb.BatchRecognizeOutcome(request_id=item.request_id, result=RESULT) for item in request.items
        ]
        return pb.BatchRecognizeResponse(outcomes=outcomes)

    async def StreamingRecognize(
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        groups = (await anext(request_iterator)).config.group_answers
        # As on the real server: at most 64 images of a stream are in work.
        stream = AnswerStream(_images(request_iterator), self._answer, 64)
        async for group in stream.groups(32 if groups else 1):
            if groups:
                answers = pb.StreamingRecognizeAnswers(
                    answers=group, max_images=256, max_image_bytes=16 << 20
                )
                yield pb.StreamingRecognizeResponse(answers=answers)
            else:
                yield group[0]

    async def _answer(self, image: pb.StreamingRecognizeImage) -> pb.StreamingRecognizeResponse:
        await self._work()
        return pb.StreamingRecognizeResponse(request_id=image.request_id, result=RESULT)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[pb.Model(name="none")])

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        share = self._busy / (self._count * (self._last - self._first)) if self._busy else 0.0
        self._forget()
        return pb.GetModelResponse(model=pb.Model(name="none", description=f"{share:.4f}"))


async def _images(
    requests: AsyncIterator[pb.StreamingRecognizeRequest],
) -> AsyncIterator[pb.StreamingRecognizeImage]:
    async for request in requests:
        for image in request.images.images or (request.image,):
            yield image


async def serve(port: int, places: int = 0, seconds: float = 0.0) -> None:
    """Serves until it is ended."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    rpc.add_RecognitionServiceServicer_to_server(NoOp(places, seconds), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    port, places, seconds = (*sys.argv[1:], "0", "0")[:3]
    asyncio.run(serve(int(port), int(places), float(seconds)))
