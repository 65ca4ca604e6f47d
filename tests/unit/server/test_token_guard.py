"""Who is turned away before a message is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from longhand_server.calls import CallGate, Context
from longhand_server.metrics import Metrics
from longhand_server.security import TokenStore
from longhand_server.token_guard import TokenGuard
from longhand_server.tracing import Tracer


class _Details:
    method = "/longhand.v1.RecognitionService/Recognize"
    invocation_metadata = (("authorization", "Bearer new"),)


class _Context:
    """A call that notes how it is ended."""

    code: grpc.StatusCode | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return _Details.invocation_metadata

    def time_remaining(self) -> None:
        return None

    def peer(self) -> str:
        return "somebody"

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        self.code = code
        raise grpc.aio.AbortError


async def test_a_token_that_comes_just_then_gives_no_empty_answer(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"old {hashlib.sha256(b'old').hexdigest()}\n")
    tokens = TokenStore(path)
    guard = TokenGuard(tokens, CallGate(Metrics(), Tracer(), tokens), [_Details.method])
    handler: Any = await guard.intercept_service(cast(Any, None), cast(Any, _Details))
    path.write_text(f"new {hashlib.sha256(b'new').hexdigest()}\n")
    tokens.use(tokens.read())
    context = _Context()
    with pytest.raises(grpc.aio.AbortError):
        await handler.stream_unary(None, cast(Context, context))
    assert context.code is grpc.StatusCode.UNAUTHENTICATED
