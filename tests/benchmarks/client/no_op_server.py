"""A server that answers at once, so that only the client is measured: python no_op_server.py PORT."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc

RESULT = pb.RecognitionResult(text="as long as a usual line of handwriting is", confidence=0.9, model="none")


class NoOp(rpc.RecognitionServiceServicer):
    """Gives the same text for everything."""

    async def Recognize(self, request: pb.RecognizeRequest, context: Any) -> pb.RecognizeResponse:
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
        async for request in request_iterator:
            if request.HasField("image"):
                yield pb.StreamingRecognizeResponse(request_id=request.image.request_id, result=RESULT)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[pb.Model(name="none")])

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=pb.Model(name="none"))


async def serve(port: int) -> None:
    """Serves until it is ended."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    rpc.add_RecognitionServiceServicer_to_server(NoOp(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
