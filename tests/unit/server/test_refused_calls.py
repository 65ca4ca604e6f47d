"""Calls that are turned away at the door."""

from __future__ import annotations

import logging
from typing import NoReturn, cast

import grpc
import pytest

from longhand_server.calls import CallGate, Context
from longhand_server.metrics import Metrics
from longhand_server.security import TokenStore
from longhand_server.tracing import Tracer


class _Context:
    """What gRPC tells of a call that is to be refused."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:10.0.0.7:4711"

    async def abort(self, *_: object) -> NoReturn:
        raise grpc.aio.AbortError


@pytest.mark.parametrize("has_tokens", [False, True])
async def test_whom_a_flood_comes_from_stands_in_the_log(
    has_tokens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "longhand_server")
    tokens = cast(TokenStore, object()) if has_tokens else None
    gate = CallGate(Metrics(), Tracer(), tokens, max_open=0)
    with pytest.raises(grpc.aio.AbortError):
        async with gate.call("Recognize", cast(Context, _Context())):
            pass
    fields = caplog.records[0].__dict__["fields"]
    # Where callers have names, the address is no caller.
    assert (fields["reason"], fields["caller"]) == ("OVERLOADED", "" if has_tokens else "ipv4:10.0.0.7")
    assert fields["peer"] == "ipv4:10.0.0.7:4711"
