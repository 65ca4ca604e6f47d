"""What Ray Serve's gRPC proxies load: the services, and how a call's end gets from a replica to the client.

Named in a Serve configuration as ``grpc_servicer_functions: [longhand_server.ray_proxy.add_services]``.

A proxy puts code, message and trailing metadata of a call into effect only together with an answer, so a replica
that refuses a call gives an empty answer along with them (:mod:`longhand_server.ray_app`); of a stream the proxy
would send it on, and here it is held back. A replica that dies leaves INTERNAL behind, which nobody tries again;
since reading an image twice does no harm it becomes UNAVAILABLE, which clients do try again.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2_grpc

from longhand.v1 import recognition_pb2_grpc

DETAILS_KEY = "grpc-status-details-bin"
_Handler: TypeAlias = Callable[[Any, Any], Any]


def add_services(servicer: Any, server: Any) -> None:
    """Adds RecognitionService and the health service to a proxy.

    Args:
        servicer: Ray's stand-in for the servicer.
        server: Ray's gRPC server, whose ``service_handler_factory`` makes the handlers.
    """
    factory = server.service_handler_factory
    server.service_handler_factory = functools.partial(_make_handler, factory)
    try:
        recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    finally:
        server.service_handler_factory = factory


def _make_handler(factory: Callable[..., _Handler], service_method: str, streaming_type: Any) -> _Handler:
    handler = factory(service_method=service_method, streaming_type=streaming_type)
    streams = streaming_type.name.endswith("STREAM")
    return functools.partial(_stream if streams else _unary, handler)


async def _unary(handler: _Handler, request: Any, context: Any) -> bytes:
    answer: bytes = await handler(request, context)
    _retry_elsewhere(context)
    if context.code() not in (None, 0, grpc.StatusCode.OK):
        # Set on the context alone the code would follow an empty answer, and gRPC tries again only if nothing came.
        await context.abort(context.code(), context.details(), context.trailing_metadata())
    return answer


async def _stream(handler: _Handler, requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for answer in handler(requests, context):
        if answer:  # no real one is empty: it has an outcome
            yield answer
    _retry_elsewhere(context)


def _retry_elsewhere(context: Any) -> None:
    trailers = dict(context.trailing_metadata() or ())
    if context.code() is grpc.StatusCode.INTERNAL and DETAILS_KEY not in trailers:
        context.set_code(grpc.StatusCode.UNAVAILABLE)
        context.set_details("the replica that had this call is gone; another one may answer")
