"""Several processes on one port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from helpers.server_process import ServerProcess, run_server, server_command
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
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.text().count("reloaded; serving toy") == 2)
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


def test_a_restarted_worker_is_as_it_was_whatever_has_become_of_the_file(
    toy_bundle: Path, tmp_path: Path
) -> None:
    config = tmp_path / "longhand.toml"
    config.write_text("[batching]\nmax_queue = 77\n")
    arguments = ("--workers", "2", "--metrics-port", "0")
    environment = {"LONGHAND_CONFIG": str(config)}
    with ServerProcess(toy_bundle, tmp_path, *arguments, environment=environment) as server:
        assert len(set(re.findall(r"^worker [01]: metrics on (http://\S+)", server.text(), re.M))) == 2
        config.write_text("nonsense\n")
        victim = workers_of(server)[0]
        victim.kill()
        wait_until(lambda: "serves again; metrics on" in server.text())
        assert all("--max-queue=77" in worker.cmdline() for worker in workers_of(server))
        assert [read(server.address) for _ in range(12)] == ["cab"] * 12
        server.process.send_signal(signal.SIGINT)  # alone; from a terminal its workers get it too
        assert server.process.wait(30) == 0


def test_a_worker_that_cannot_be_started_at_once_comes_back(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--workers", "2") as server:
        hard = psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE, (3, hard[1]))
        workers_of(server)[0].kill()
        wait_until(lambda: "cannot be started: " in server.text())
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE, hard)
        wait_until(lambda: "serves again" in server.text())
        assert len(workers_of(server)) == 2
        assert server.stop() == 0


def test_a_worker_that_hangs_does_not_keep_the_server(toy_bundle: Path, tmp_path: Path) -> None:
    # Ten seconds of patience after the grace are of no interest here.
    impatient: dict[str, Any] = {
        "module": ("helpers.impatient_server",),
        "environment": {"PYTHONPATH": str(Path(__file__).parents[1])},
    }
    with ServerProcess(toy_bundle, tmp_path, "--workers", "2", "--grace-s", "0", **impatient) as server:
        workers_of(server)[0].suspend()
        assert server.stop() == signal.SIGKILL
        assert "it is killed" in server.text()


def test_a_server_that_stops_while_a_worker_is_replaced_stopped_well(
    toy_bundle: Path, tmp_path: Path
) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--workers", "2") as server:
        workers_of(server)[0].kill()
        wait_until(lambda: "another one starts" in server.text())
        assert server.stop() == 0


def test_a_server_that_is_stopped_while_its_workers_start_does_not_wait_for_them(toy_bundle: Path) -> None:
    command = server_command("--model", str(toy_bundle), "--port", "0", "--workers", "2")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as starting:
        wait_until(lambda: len(psutil.Process(starting.pid).children()) == 2)
        starting.send_signal(signal.SIGTERM)
        output, _ = starting.communicate(timeout=20)
    assert (starting.returncode, output) == (0, b"")


def test_every_worker_needs_a_metrics_port(toy_bundle: Path) -> None:
    done = run_server(
        ["--model", str(toy_bundle), "--port", "0", "--workers", "2", "--metrics-port", "65535"]
    )
    assert done.returncode == 2
    assert "metrics_port: got 65535, need at most 65534 with 2 workers" in done.stderr


def test_two_servers_share_a_port_only_where_both_say_so(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--workers", "2") as server:
        port = server.address.rpartition(":")[2]
        done = run_server(["--model", str(toy_bundle), "--port", port, "--workers", "2"])
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


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
