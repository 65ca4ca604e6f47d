"""The demo and its own server."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longhand_client import demo
from longhand_client.local_server import LocalServer
from longhand_server.config import SecurityConfig
from longhand_server.settings import parse_arguments

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer


def test_its_own_server_is_private_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def start(command: list[str], **_: object) -> object:
        commands.append(command)
        raise OSError("not started here")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(OSError, match="not started here"):
        LocalServer(("--threads", "1")).__enter__()
    environment = {
        "LONGHAND_HOST": "0.0.0.0",
        "LONGHAND_PORT": "50051",
        "LONGHAND_METRICS_PORT": "9090",
        "LONGHAND_TOKEN_FILE": "/etc/longhand/tokens",
        "LONGHAND_TLS_CERT": "cert.pem",
        "LONGHAND_MODEL": "mine",
    }
    config, _ = parse_arguments(commands[0][3:], environment)
    assert (config.listen.host, config.listen.port, config.observe.metrics_port) == ("127.0.0.1", 0, -1)
    assert config.security == SecurityConfig()
    assert (config.models.model, config.runtime.threads) == ("mine", 1)


def test_nowhere_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert demo.main([str(tmp_path / "x.png")]) == 1
    assert "TMPDIR" in capsys.readouterr().err


def test_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> LocalServer:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "LocalServer", stopped)
    (tmp_path / "x.png").touch()
    assert demo.main([str(tmp_path / "x.png")]) == 130
    assert capsys.readouterr().err == "demo: stopped\n"


def test_text_that_the_terminal_cannot_show(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "é.png").write_bytes("text:à".encode())
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii", write_through=True))
    monkeypatch.setattr(demo, "LocalServer", lambda: contextlib.nullcontext(fake))
    assert demo.main([str(tmp_path / "é.png")]) == 0
    assert rb"\xe9.png (" in content.getvalue()
    assert rb"text        \xe0" in content.getvalue()


def test_output_that_cannot_be_written_is_told_in_one_line(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.png").write_bytes(b"text:one")
    monkeypatch.setattr(demo, "LocalServer", lambda: contextlib.nullcontext(fake))
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert demo.main([str(tmp_path / "one.png")]) == 1
        full.flush()  # what was not taken is given up
    assert capsys.readouterr().err == "demo: No space left on device\n"
