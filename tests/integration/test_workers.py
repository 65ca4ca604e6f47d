"""Several processes on one port."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import grpc
import psutil
import pytest

from helpers.server_process import ServerProcess, run_server
from helpers.toy_model import draw_image
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc


def read(address: str, *, retries: int = 0) -> str:
    """One call over a connection of its own, so that any worker may get it."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        while True:
            try:
                return stub.Recognize(pb.RecognizeRequest(image=draw_image("cab")), timeout=20).result.text
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or not retries:
                    raise
                retries -= 1
                time.sleep(0.1)


def workers_of(server: ServerProcess) -> list[psutil.Process]:
    return [child for child in psutil.Process(server.process.pid).children() if child.is_running()]


def wait_until(condition: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def test_workers_share_the_port_and_a_killed_one_comes_back(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--workers", "2") as server:
        assert f"on {server.address} with 2 workers" in server.text()
        first = {worker.pid for worker in workers_of(server)}
        assert len(first) == 2
        assert [read(server.address) for _ in range(12)] == ["cab"] * 12
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        # The other worker goes on; whoever was on the dead one retries.
        assert [read(server.address, retries=50) for _ in range(12)] == ["cab"] * 12
        wait_until(lambda: "serves again" in server.text())
        second = {worker.pid for worker in workers_of(server)}
        assert len(second) == 2
        assert victim not in second
        assert [read(server.address) for _ in range(12)] == ["cab"] * 12
        remaining = workers_of(server)
        assert server.stop() == 0
        wait_until(lambda: not any(worker.is_running() for worker in remaining), 5)


def test_workers_end_when_their_supervisor_is_killed(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--workers", "2") as server:
        workers = workers_of(server)
        server.process.kill()
        wait_until(lambda: not any(worker.is_running() for worker in workers))


def test_workers_that_cannot_start_stop_everything() -> None:
    done = run_server(["--model", "nonesuch", "--port", "0", "--workers", "2"])
    assert done.returncode == 1
    assert done.stdout == ""
    assert set(done.stderr.splitlines()) == {
        "longhand_server: model 'nonesuch': neither a folder nor a shipped model (shipped: en)"
    }


@pytest.mark.parametrize("workers", ["0", "1000"])
def test_the_number_of_workers_is_bounded(workers: str) -> None:
    done = run_server(["--workers", workers])
    assert done.returncode == 2
    assert f"--workers: got {workers}, need 1 to 256" in done.stderr
