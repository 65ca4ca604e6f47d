"""How often a client may ping the server, with a clock that runs a hundred times as fast."""

from __future__ import annotations

import socket
import struct
import time

import grpc
import pytest

from longhand_server.config import ServerConfig
from longhand_server.server import _channel_options

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _PING, _GOAWAY = 4, 6, 7
_INTERVAL = "grpc.http2.min_ping_interval_without_data_ms"
_TIMES_AS_FAST = 100
# gRPC ends the connection at the third ping that comes too early.
_PINGS = 8


@pytest.mark.parametrize(("every_s", "is_ended"), [(20.0, False), (2.0, True)])
async def test_who_has_no_calls_may_ping_every_ten_seconds_or_so_and_no_more_often(
    every_s: float, is_ended: bool
) -> None:
    options = dict(_channel_options(ServerConfig()))
    options[_INTERVAL] //= _TIMES_AS_FAST
    server = grpc.aio.server(options=list(options.items()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            assert _is_ended_by_pings(connection, every_s / _TIMES_AS_FAST) == is_ended
    finally:
        await server.stop(0)


def _is_ended_by_pings(connection: socket.socket, pause_s: float) -> bool:
    connection.sendall(_PREFACE + _frame(_SETTINGS) + _frame(_SETTINGS, flags=1))
    try:
        for _ in range(_PINGS):
            time.sleep(pause_s)  # gRPC has threads of its own
            connection.sendall(_frame(_PING, bytes(8)))
        return _GOAWAY in _kinds_until_last_pong(connection)
    except ConnectionError:
        return True


def _frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, 0) + payload


def _kinds_until_last_pong(connection: socket.socket) -> list[int]:
    """The kinds of frames that come until every ping is answered or the connection is to end."""
    kinds: list[int] = []
    with connection.makefile("rb") as stream:
        while kinds.count(_PING) < _PINGS and _GOAWAY not in kinds and (head := stream.read(9)):
            length, kind = struct.unpack(">I", b"\0" + head[:3])[0], head[3]
            stream.read(length)
            kinds.append(kind)
    return kinds
