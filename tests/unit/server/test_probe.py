"""The probe's exit code, by which an orchestrator restarts a container or sends it no calls."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from longhand_server import probe


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken, and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["probe", *arguments])
    return probe.main()


@pytest.mark.parametrize(
    ("status", "code"),
    [(health_pb2.HealthCheckResponse.SERVING, 0), (health_pb2.HealthCheckResponse.NOT_SERVING, 1)],
)
def test_the_exit_code_tells_whether_it_serves(
    status: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = health.HealthServicer()
    service.set("", status)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert _run(monkeypatch, f"127.0.0.1:{port}") == code
        monkeypatch.setenv("LONGHAND_PORT", str(port))
        assert _run(monkeypatch) == code
    finally:
        server.stop(0).wait()


def test_an_address_without_a_port_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAND_TLS_CERT", "cert.pem")
    assert _run(monkeypatch, "localhost") == 2


@pytest.mark.parametrize(("encrypts", "problem"), [(False, "DEADLINE_EXCEEDED: "), (True, "timed out")])
def test_a_server_that_hangs_does_not_hang_the_probe(
    encrypts: bool,
    problem: str,
    silent: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(probe, "_TIMEOUT_S", 0.1)
    if encrypts:
        monkeypatch.setenv("LONGHAND_TLS_CERT", "cert.pem")
    assert _run(monkeypatch, silent) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{silent}: ")
    assert problem in said
