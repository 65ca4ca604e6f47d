"""Clients that misbehave. The numbers grow with CHAOS_SCALE (``make chaos``: 10)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc

_SCALE = int(os.environ.get("CHAOS_SCALE", "1"))
_METHOD = "/longhand.v1.RecognitionService/"
# What gRPC does by itself for a client that asks for it.
_RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "longhand.v1.RecognitionService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_IMAGE = draw_image("abc dec")
# What an HTTP/2 connection begins with, and empty settings.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


async def _still_serves(address: str, seconds: float = 10.0) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        answer = await stub.Recognize(pb.RecognizeRequest(image=_IMAGE), timeout=seconds)
        assert answer.result.text == "abc dec"


async def test_messages_of_random_bytes(server: ServerProcess) -> None:
    chooser = random.Random(4)
    codes: set[grpc.StatusCode] = set()
    sound = pb.RecognizeRequest(
        image=_IMAGE, options=pb.RecognitionOptions(alternatives=3)
    ).SerializeToString()
    async with grpc.aio.insecure_channel(server.address) as channel:
        for method in ("Recognize", "BatchRecognize", "GetModel", "ListModels"):
            call: Any = channel.unary_unary(_METHOD + method)
            for n in range(100 * _SCALE):
                damaged = bytearray(sound if n % 2 else chooser.randbytes(chooser.randrange(400)))
                for _ in range(min(len(damaged), 8)):
                    damaged[chooser.randrange(min(len(damaged), 64))] = chooser.randrange(256)
                try:
                    await call(bytes(damaged), timeout=10)
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code())
    # UNKNOWN is gRPC's own answer to bytes that are no message.
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN}
    await _still_serves(server.address)


async def test_unknown_methods_are_unimplemented(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary(_METHOD + "Forget")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_cancel_storm_leaves_nothing_behind(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--max-queue", "500") as server:
        await _still_serves(server.address)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            request = pb.RecognizeRequest(image=_IMAGE)
            before = 0
            for n in range(30 * _SCALE):
                calls = [stub.Recognize(request) for _ in range(100)]
                await asyncio.sleep(0.001 * (n % 5))
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                if n == 10 * _SCALE:
                    before = server.memory()
            await asyncio.sleep(0.5)
        await _still_serves(server.address)
        assert server.memory() < before + 30_000_000
        assert server.stop() == 0


async def test_a_thousand_idle_connections(server: ServerProcess) -> None:
    host, port = server.address.split(":")
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(1000)
        ]
        # Some send the beginning of HTTP/2 and then nothing, some send nonsense, the rest says nothing.
        for index, one in enumerate(sockets):
            if index % 3 == 0:
                one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[: 1 + index % 24])
            elif index % 3 == 1:
                with contextlib.suppress(OSError):
                    one.sendall(os.urandom(50))
        begun = time.monotonic()
        await _still_serves(server.address)
        assert time.monotonic() - begun < 10


async def test_clients_that_dawdle_or_stop_in_the_middle(toy_bundle: Path, tmp_path: Path) -> None:
    """Slow loris: nothing, half a preface, half a request or a request that never goes on holds nobody up."""
    half_request = _http2_request(_IMAGE)[: -len(_IMAGE) // 2]
    openings = (b"", _PREFACE[:9], _PREFACE, half_request)
    with ServerProcess(toy_bundle, tmp_path, "--max-calls", "20") as server:
        host, port = server.address.split(":")
        await _still_serves(server.address)
        before = server.memory()
        sockets = [socket.create_connection((host, int(port))) for _ in range(40 * len(openings))]
        for n, client in enumerate(sockets):
            client.sendall(openings[n % len(openings)])
        try:
            for tick in range(min(20 * _SCALE, len(_IMAGE) // 4)):
                for n, client in enumerate(sockets):
                    opening = openings[n % len(openings)]
                    if opening is half_request:  # a byte at a time
                        client.sendall(_IMAGE[tick : tick + 1])
                await _still_serves(server.address)
            # They hold no place among the open calls (20 at most), and no memory to speak of.
            assert server.memory() < before + 60_000_000
        finally:
            for client in sockets:
                client.close()
        await _still_serves(server.address)
        assert server.stop() == 0


def _http2_request(image: bytes) -> bytes:
    """The bytes of one Recognize call on a new connection (RFC 9113, and gRPC's length prefix)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
        return head + payload

    def text(value: str) -> bytes:
        return bytes((len(value),)) + value.encode()

    headers = b"\x83\x86\x04" + text(f"{_METHOD}Recognize") + b"\x01" + text("localhost")
    headers += (
        b"\x00" + text("content-type") + text("application/grpc") + b"\x00" + text("te") + text("trailers")
    )
    message = pb.RecognizeRequest(image=image).SerializeToString()
    data = b"\x00" + len(message).to_bytes(4, "big") + message
    return _PREFACE + frame(1, 4, 1, headers) + frame(0, 1, 1, data)


async def test_compressed_messages_are_not_unpacked(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--max-request-bytes", "1000000") as server:
        await _still_serves(server.address)
        before = server.memory()
        assert len(gzip.compress(bytes(200_000_000), 1)) < 1_000_000
        async with grpc.aio.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Recognize(pb.RecognizeRequest(image=bytes(200_000_000)), timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert server.memory() < before + 50_000_000
        await _still_serves(server.address)


async def test_a_reader_that_never_reads(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path) as server:
        await _still_serves(server.address)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            options = pb.RecognitionOptions(alternatives=50, include_characters=True)
            call = stub.StreamingRecognize()
            await call.write(
                pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig(options=options))
            )
            message = pb.StreamingRecognizeRequest(
                image=pb.StreamingRecognizeImage(image=draw_image("abcde" * 20))
            )
            sent = 0
            before = server.memory()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(8 * min(_SCALE, 4)):
                    while True:
                        await call.write(message)
                        sent += 1
            # What is on its way is bounded by what a stream may have in flight and by gRPC's own windows.
            assert server.memory() < before + 60_000_000
            await _still_serves(server.address)
            call.cancel()


async def test_a_worker_killed_under_load(toy_bundle: Path, tmp_path: Path) -> None:
    import psutil

    with ServerProcess(toy_bundle, tmp_path, "--workers", "2", "--max-queue", "5000") as server:
        codes: set[grpc.StatusCode] = set()
        done = 0

        async def client(stop_at: float, *, retries: bool) -> None:
            nonlocal done
            options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
            if retries:
                options.append(("grpc.service_config", json.dumps(_RETRY)))
            async with grpc.aio.insecure_channel(server.address, options) as channel:
                stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
                while time.monotonic() < stop_at:
                    try:
                        answer = await stub.Recognize(pb.RecognizeRequest(image=_IMAGE), timeout=30)
                        assert answer.result.text == "abc dec"
                        done += 1
                    except grpc.aio.AioRpcError as error:
                        if retries:
                            raise  # whoever asked gRPC to retry must not see the death of a worker
                        codes.add(error.code())
                        await asyncio.sleep(0.05)

        stop_at = time.monotonic() + 6 * min(_SCALE, 5)
        clients = [asyncio.create_task(client(stop_at, retries=n % 2 == 0)) for n in range(8)]
        await asyncio.sleep(1.5)
        victim = psutil.Process(server.process.pid).children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        await asyncio.gather(*clients)
        assert codes <= {grpc.StatusCode.UNAVAILABLE}
        assert done > 50
        workers = psutil.Process(server.process.pid).children()
        assert len(workers) == 2  # the supervisor has started another one
        assert victim not in workers
        assert server.stop() == 0
