"""Refused calls leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import grpc
import pytest
import pytest_asyncio

from helpers.toy_model import draw_image, write_bundle
from longhand.oip import inference_pb2 as oip
from longhand.oip import inference_pb2_grpc
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_server import calls
from longhand_server.calls import Call, CallGate, Context, as_known, caller_of
from longhand_server.config import ListenConfig, ModelsConfig, SecurityConfig, ServerConfig
from longhand_server.errors import (
    LonghandError,
    RecognitionFailedError,
    ShuttingDownError,
    UnauthenticatedError,
)
from longhand_server.metrics import Metrics
from longhand_server.security import Caller
from longhand_server.server import LonghandServer, build_server
from longhand_server.tracing import Tracer


@pytest_asyncio.fixture(params=[False, True], ids=["open", "with tokens"])
async def stub(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[recognition_pb2_grpc.RecognitionServiceAsyncStub]:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"me {hashlib.sha256(b'secret').hexdigest()}\n")
    config = ServerConfig(
        models=ModelsConfig(model=str(write_bundle(tmp_path / "toy"))),
        listen=ListenConfig(port=0, grace_s=0.5),
        security=SecurityConfig(token_file=str(tokens) if request.param else ""),
    )
    server = await build_server(config)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield recognition_pb2_grpc.RecognitionServiceStub(channel)
    await server.drain(0.5)


async def test_a_refused_call_is_forgotten_without_a_collection(
    stub: recognition_pb2_grpc.RecognitionServiceAsyncStub,
) -> None:
    requests = [
        pb.RecognizeRequest(image=b"no image" * 1000),
        pb.RecognizeRequest(image=draw_image("abc"), options=pb.RecognitionOptions(alternatives=9999)),
    ]
    await _refuse(stub, requests[0])
    gc.collect()
    # By type(): isinstance would ask things of other tests' libraries, some of which warn about that.
    before = [thing for thing in gc.get_objects() if issubclass(type(thing), LonghandError)]  # of other tests
    gc.disable()
    try:
        for request in requests * 5:
            await _refuse(stub, request)
        await asyncio.sleep(0.05)
        things = gc.get_objects()
        known = {id(thing) for thing in before}
        alive = [
            thing for thing in things if issubclass(type(thing), LonghandError) and id(thing) not in known
        ]
        # gRPC itself may go round in circles, but without what the handlers knew.
        aborted = [thing for thing in things if issubclass(type(thing), grpc.aio.AbortError)]
        del things
    finally:
        gc.enable()
    assert not alive
    assert all(error.__traceback__ is None and error.__context__ is None for error in aborted)


async def _refuse(
    stub: recognition_pb2_grpc.RecognitionServiceAsyncStub, request: pb.RecognizeRequest
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Recognize(request)
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED)


class _Context:
    """What gRPC tells of a call whose deadline is so many seconds away."""

    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> float | None:
        return self._remaining

    def peer(self) -> str:
        return "somebody"

    def set_trailing_metadata(self, metadata: object) -> None:
        pass


@pytest.mark.parametrize(
    ("remaining", "code"), [(0.15, "DEADLINE_EXCEEDED"), (60.0, "CANCELLED"), (None, "CANCELLED")]
)
async def test_a_call_that_its_deadline_ends_is_counted_as_such(
    remaining: float | None, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "longhand_server.access")
    metrics = Metrics()
    gate = CallGate(metrics, Tracer())

    async def call() -> None:
        async with gate.call("Recognize", cast(Context, _Context(remaining))):
            await asyncio.sleep(0.1)
            raise asyncio.CancelledError  # as gRPC does in both cases

    with pytest.raises(asyncio.CancelledError):
        await call()
    labels = {"method": "Recognize", "code": code, "reason": code}
    assert metrics.registry.get_sample_value("longhand_calls_total", labels) == 1
    # Who leaves does so of their own accord; who waits in vain is a reason to look.
    assert [record.levelname for record in caplog.records] == ["INFO" if code == "CANCELLED" else "WARNING"]


async def test_a_drain_ends_with_the_last_of_the_open_calls() -> None:
    gate = CallGate(Metrics(), Tracer())
    context = cast(Context, _Context(None))
    async with gate.call("Recognize", context):
        async with gate.call("Recognize", context):
            draining = asyncio.create_task(gate.drain())
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert not draining.done()
    async with asyncio.timeout(10):
        await draining


@pytest.mark.parametrize("kind", [RecognitionFailedError, KeyError])
def test_faults_of_the_server_s_own_are_logged_with_the_call_s_id(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    assert as_known(kind("it failed"), "id-7").code == "INTERNAL"
    assert "id-7" in caplog.text
    assert "it failed" in caplog.text
    caplog.clear()  # a record keeps its error, and that is looked for elsewhere


def test_faults_are_counted_at_zero_before_the_first() -> None:
    metrics = Metrics()
    metrics.watch_queue(object(), "en", lambda: 0)  # as a model does that is loaded
    calls = {"method": "Recognize", "code": "INTERNAL", "reason": "RECOGNITION_FAILED"}
    assert metrics.registry.get_sample_value("longhand_calls_total", calls) == 0
    lines = {"model": "en", "reason": "RECOGNITION_FAILED"}
    assert metrics.registry.get_sample_value("longhand_lines_total", lines) == 0


async def test_streams_of_one_caller_take_turns_and_leave_something_to_single_calls() -> None:
    holder = Caller("me", b"", 20.0)
    draining = asyncio.Event()
    streams = [Call("", "me", holder, math.inf, draining) for _ in "ab"]
    single = Call("", "me", holder, math.inf, draining)
    turns: list[int] = []

    async def image(number: int) -> None:
        await streams[number].await_turn()
        turns.append(number)

    waiting = [asyncio.create_task(image(number)) for number in (0, 1) for _ in range(40)]
    await asyncio.sleep(0.8)
    assert abs(turns.count(0) - turns.count(1)) <= 20  # the allowance of the start may go to one of them
    later = turns[20:]
    assert later, turns
    assert abs(later.count(0) - later.count(1)) <= 1
    single.spend(1)
    waiting[-1].cancel()
    draining.set()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(end, ShuttingDownError) for end in ends)
    assert not holder.turn.locked()


async def test_a_stream_that_waits_for_its_turn_learns_of_a_higher_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_LONGEST_WAIT_S", 0.01)
    holder = Caller("me", b"", 0.001)
    call = Call("", "me", holder, math.inf, asyncio.Event())
    await call.await_turn()
    waiting = asyncio.create_task(call.await_turn())  # for a thousand seconds
    await asyncio.sleep(0)
    holder.change_to(Caller("me", b"", 1_000.0))
    await asyncio.wait_for(waiting, 30)


async def test_images_that_wait_for_their_turn_are_not_read_once_the_token_is_revoked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_LONGEST_WAIT_S", 0.01)
    holder = Caller("me", b"old", 0.001)
    before = Call("", "me", holder, math.inf, asyncio.Event())
    await before.await_turn()
    waiting = asyncio.create_task(before.await_turn())  # for a thousand seconds
    await asyncio.sleep(0)
    holder.change_to(Caller("me", b"new", 1_000.0))
    with pytest.raises(UnauthenticatedError, match="not known here any more"):
        await asyncio.wait_for(waiting, 30)
    after = Call("", "me", holder, math.inf, asyncio.Event())
    await after.await_turn()
    holder.revoke()
    with pytest.raises(UnauthenticatedError):
        await after.await_turn()


def test_a_token_alone_lets_nobody_go_before_others() -> None:
    for holder, most in ((None, 1), (Caller("me", b""), 0), (Caller("me", b"", may_go_first=True), 1)):
        call = Call("", "me", holder, math.inf, asyncio.Event())
        assert [call.allowed_priority(wanted) for wanted in (-1, 0, 1)] == [-1, 0, most]


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[LonghandServer]:
    config = ServerConfig(
        models=ModelsConfig(model=str(write_bundle(tmp_path / "toy"))), listen=ListenConfig(port=0)
    )
    server = await build_server(config)
    yield server
    await server.drain(0.5)


async def test_a_long_message_is_cut_instead_of_costing_the_whole_status(server: LonghandServer) -> None:
    request = oip.ModelInferRequest(model_name="toy")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    tensor.parameters["shared_memory_" + "\u20ac" * 10_000].string_param = "x"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (caught.value.details() or "").endswith("\u20ac\u2026")


async def test_a_stream_that_says_nothing_ends(
    server: LonghandServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longhand_server.servicer._FIRST_MESSAGE_S", 0.1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = recognition_pb2_grpc.RecognitionServiceStub(channel).StreamingRecognize()
        with pytest.raises(grpc.aio.AioRpcError, match=r"no message came within 0\.1 s"):
            await call.read()


async def test_the_end_takes_no_longer_than_it_may(
    server: LonghandServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work_on() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(server.registry, "close", work_on)
    monkeypatch.setattr(server._tracer, "close", lambda: time.sleep(5))  # as with a collector that is gone
    begun = time.monotonic()
    await server.drain(0.2)
    assert time.monotonic() - begun < 2.0
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "ipv4:10.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "ipv6:%5B::1%5D"),
        ("unix:/run/socket:5", "unix:/run/socket:5"),
    ],
)
def test_a_caller_is_an_address_however_many_connections_it_has(peer: str, address: str) -> None:
    assert caller_of(peer) == address
