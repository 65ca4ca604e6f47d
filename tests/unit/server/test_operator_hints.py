"""What an operator is told of settings that would do nothing and of taken ports; the cores taken by default."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.toy_model import write_bundle
from longhand_server.config import ListenConfig, ModelsConfig, ObserveConfig, RuntimeConfig, ServerConfig
from longhand_server.cores import usable_cores
from longhand_server.errors import ConfigurationError, PortTakenError
from longhand_server.metrics import Metrics
from longhand_server.ports import reserve_port
from longhand_server.registry import find_bundles
from longhand_server.server import _serve_metrics
from longhand_server.settings import unknown_variables
from longhand_server.supervisor import Supervisor
from longhand_server.tracing import make_tracer


def test_variables_that_are_no_settings_are_found() -> None:
    environment = {"LONGHAND_MAX_QUEU": "1", "LONGHAND_MAX_QUEUE": "1", "LONGHAND_CONFIG": "", "PATH": ""}
    assert unknown_variables(environment) == ["LONGHAND_MAX_QUEU"]


def test_a_folder_without_models_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "longhand_server")  # `longhand --local` in this process has set another
    write_bundle(tmp_path / "toy")
    find_bundles(ServerConfig(models=ModelsConfig(model=str(tmp_path / "toy"), models=str(tmp_path))))
    assert not caplog.messages
    # A bundle itself in place of the folder that holds it.
    find_bundles(ServerConfig(models=ModelsConfig(models=str(tmp_path / "toy"))))
    assert f"models: none in {tmp_path / 'toy'}" in caplog.messages[0]


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317"])
def test_a_collector_needs_a_scheme(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"otlp_endpoint: got '{endpoint}', need http://"):
        make_tracer(endpoint)


def test_the_process_shows_its_memory() -> None:
    metrics = Metrics()
    _serve_metrics(ObserveConfig(metrics_port=0), metrics)
    assert (metrics.registry.get_sample_value("process_resident_memory_bytes") or 0) > 1e6


@pytest.mark.parametrize(
    ("group", "share", "expected"),
    [
        ("0::/unit\n", "150000 100000\n", 2),
        ("1:cpu:/old\n0::/unit\n", "50000 100000\n", 1),
        ("0::/unit\n", "max 100000\n", 8),
        ("0::/unit\n", "9000000 100000\n", 8),
        ("0::/other\n", "100000 100000\n", 8),
        ("1:cpu:/old\n", "100000 100000\n", 8),
    ],
)
def test_no_more_cores_than_the_container_s_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, share: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    (tmp_path / "cgroup").write_text(group)
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "cpu.max").write_text(share)
    assert usable_cores(tmp_path / "cgroup", tmp_path) == expected


@pytest.mark.parametrize(("workers", "given", "threads"), [(1, 0, 6), (2, 0, 3), (8, 0, 1), (2, 5, 5)])
def test_workers_share_the_cores_that_they_may_use(
    monkeypatch: pytest.MonkeyPatch, workers: int, given: int, threads: int
) -> None:
    monkeypatch.setattr("longhand_server.supervisor.usable_cores", lambda: 6)
    config = ServerConfig(
        listen=ListenConfig(workers=workers), runtime=RuntimeConfig(device="cpu", threads=given)
    )
    assert Supervisor(config)._worker_config(0, 1).runtime.threads == threads


def test_why_it_does_not_start_is_json_where_logs_are() -> None:
    command = [sys.executable, "-m", "longhand_server", "--log-format=json", "--workers=2", "--host=unix:x"]
    environment = {**os.environ, "LONGHAND_MAX_QUEU": "1"}
    outcome = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert outcome.returncode == 2
    misspelt, reason = map(json.loads, outcome.stderr.splitlines())
    assert misspelt["message"] == "LONGHAND_MAX_QUEU is no setting and has no effect"
    assert reason["level"] == "critical"
    assert "cannot share a Unix socket" in reason["message"]


def test_a_taken_port_is_no_wrong_setting() -> None:
    """It may be free again, so that a supervisor that does not try wrong settings again tries it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            PortTakenError, match=f"^port: cannot listen on 127.0.0.1:{port}: Address already"
        ):
            reserve_port(ListenConfig(port=port))
        with pytest.raises(PortTakenError, match=f"^metrics_port: cannot listen on 127.0.0.1:{port}: Addr"):
            _serve_metrics(ObserveConfig(metrics_port=port), Metrics())
    with pytest.raises(ConfigurationError, match=r"^port: cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        reserve_port(ListenConfig(host="192.0.2.1", port=0))
    with pytest.raises(ConfigurationError, match=r"^port: cannot listen on \[2001:db8::1\]:9: "):
        reserve_port(ListenConfig(host="2001:db8::1", port=9))
