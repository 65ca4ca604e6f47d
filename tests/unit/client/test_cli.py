from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from longhand_client import cli

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer

SCRIPT = Path(__file__).parents[3] / "clients" / "cli.py"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.png").write_bytes(f"text:line {name}".encode())
    (tmp_path / "bad.png").write_bytes(b"bad")
    return tmp_path


def run(server: str, *arguments: str | Path) -> int:
    return cli.main([*map(str, arguments), "--address", server])


def test_one_image_prints_its_text(fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake.address, lines / "one.png") == 0
    assert capsys.readouterr() == ("line one\n", "")


def test_several_images_get_their_names_in_order(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake.address, lines / "two.png", lines / "one.png") == 0
    assert capsys.readouterr().out == f"{lines}/two.png: line two\n{lines}/one.png: line one\n"


def test_json_lines(fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake.address, "--json", lines / "one.png", lines / "two.png") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records == [
        {"file": str(lines / "one.png"), "text": "line one", "confidence": 0.75},
        {"file": str(lines / "two.png"), "text": "line two", "confidence": 0.75},
    ]


def test_failed_images_are_named_and_the_others_print(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake.address, lines / "bad.png", lines / "gone.png", lines / "one.png") == 1
    captured = capsys.readouterr()
    assert captured.out == f"{lines}/one.png: line one\n"
    assert f"{lines}/bad.png: image: got 3 bytes" in captured.err
    assert f"{lines}/gone.png: No such file" in captured.err


def test_no_server(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    assert run(address, lines / "one.png") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert address in captured.err
    assert "make serve" in captured.err


def test_files_that_cannot_be_used_are_named(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = lines / "broken.tsv"
    broken.write_bytes(b"one.png\tfirst\ntwo.png\t\xff\n")
    for argument, path, problem in (
        ("--hotwords", lines / "gone.txt", "gone.txt: No such file or directory"),
        ("--hotwords", broken, "broken.tsv: not UTF-8 text"),
        ("--manifest", lines / "gone.tsv", "gone.tsv: No such file or directory"),
        ("--reference", broken, "broken.tsv line 2: the row is not UTF-8 text"),
        ("--token-file", lines, f"{lines}: Is a directory"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(fake.address, lines / "one.png", argument, path)
        assert caught.value.code == 2
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--unknown", "x.png"], ["x.png", "--address", "host:port"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_script_is_the_same_command(fake: FakeServer, lines: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(lines / "one.png"), "--address", fake.address]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "line one\n"), outcome.stderr
