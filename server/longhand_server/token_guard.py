"""Calls without a token end before their message is read: memory is for those who may call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc

from longhand_server.calls import CallGate, Context
from longhand_server.errors import UnauthenticatedError
from longhand_server.security import TokenStore


class TokenGuard(grpc.aio.ServerInterceptor):
    """Looks at the token of unary calls as soon as their headers are there.

    Others pass: streams are let in before they are read in any case.

    Args:
        tokens: The callers known.
        gate: Counts and logs those that are turned away.
        methods: Full names of the methods to guard, such as ``"/longhand.v1.RecognitionService/Recognize"``.
    """

    def __init__(self, tokens: TokenStore, gate: CallGate, methods: Collection[str]) -> None:
        self._tokens = tokens
        self._gate = gate
        self._methods = frozenset(methods)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's own handler, or one that ends the call."""
        method: str = handler_call_details.method
        if method in self._methods:
            metadata = dict(handler_call_details.invocation_metadata or ())
            try:
                self._tokens.authenticate(metadata.get("authorization"))
            except UnauthenticatedError:
                return self._refusal(method.rpartition("/")[2])
        return await continuation(handler_call_details)

    def _refusal(self, method: str) -> Any:
        async def refuse(requests: AsyncIterator[bytes], context: Context) -> None:
            async with self._gate.call(method, context):
                # It comes here only where a reload has just brought the token.
                raise UnauthenticatedError("the token was not known when the call came; call again")

        # Of a stream of requests nothing is read that the handler does not ask for, and on the wire it is the same.
        return grpc.stream_unary_rpc_method_handler(refuse)
