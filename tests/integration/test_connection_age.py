"""A client is asked to connect again from time to time and loses nothing by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from longhand_client import RecognizerClient


def test_calls_and_a_stream_outlive_their_connection(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--max-connection-age-s", "1") as server:
        port = int(server.address.rpartition(":")[2])
        connections: set[int] = set()

        def image() -> bytes:
            for connection in psutil.Process().net_connections("tcp"):
                if connection.raddr and connection.raddr.port == port and connection.status == "ESTABLISHED":
                    connections.add(connection.laddr.port)
            return draw_image("abc")

        with RecognizerClient(server.address, retries=0) as client:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                assert client.recognize(image()).text == "abc"
                time.sleep(0.1)
            assert len(connections) > 1

            def slowly() -> Iterator[bytes]:
                for _ in range(20):
                    time.sleep(0.1)
                    yield image()

            # The stream stays on its own connection until it ends: it is never cut short.
            outcomes = list(client.recognize_stream(slowly()))
        assert [outcome.transcription and outcome.transcription.text for outcome in outcomes] == ["abc"] * 20
