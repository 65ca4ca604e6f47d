"""What the benchmark refuses, and what it says where nothing could be read."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.fake_service import running_server
from longhand_client import benchmark
from longhand_client.bench.load import Load, Sample
from longhand_client.bench.report import Point, make_point, print_table, read_points, to_json


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--concurrency", "0.5"], "got 0.5, need a whole number of at least 1"),
        (["--rate", "nan"], "got nan, need a number above 0"),
        (["--rate", "10,inf"], "got inf, need a number above 0"),
        (["--call", "batch", "--batch-size", "-3"], "got -3, need a whole number"),
        (["--duration", "0"], "got 0, need a number above 0"),
        (["--warm-up", "-1"], "got -1, need a number of at least 0"),
        (["--processes", "0"], "got 0, need a whole number"),
        (["--slo-ms", "-1"], "got -1, need a number above 0"),
        (["--width", "0"], "got 0, need a whole number"),
        (["--address", "foo:bar"], "got 'foo:bar', need HOST:PORT"),
        (["--local", "--address", "x:1"], "leave out --address"),
        (["--local", "--tls-ca", "ca.pem"], "leave out --address"),
        (["--rate", "5", "--concurrency", "2"], "--concurrency and --rate: take one of them"),
        (["--slo-ms", "5", "--rate", "2"], "--rate and --slo-ms: take one of them"),
        (["--batch-size", "8"], "needs --call batch"),
        (["x.png", "--width", "300"], "leave out the images"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        benchmark.main(arguments)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_the_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for option, path in (("--json", tmp_path / "no" / "x.json"), ("--plots", tmp_path / "file")):
        assert benchmark.main([option, str(path), "--address", "localhost:1"]) == 1
        assert f"benchmark: {path}: " in capsys.readouterr().err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "_run", interrupted)
    assert benchmark.main([]) == 130
    assert capsys.readouterr().err == "benchmark: stopped\n"


def test_what_the_server_said_of_failures_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "bad.png"
    image.write_bytes(b"bad")
    with running_server() as server:
        quick = ["--concurrency", "1", "--duration", "1", "--warm-up", "0"]
        code = benchmark.main([str(image), "--address", server.address, *quick])
    assert code == 1
    assert "unary x1: INVALID_ARGUMENT: image: got 3 bytes" in capsys.readouterr().out


def test_messages_of_all_processes(tmp_path: Path) -> None:
    first, second = Sample(duration_s=1.0), Sample(duration_s=1.0)
    first.messages["UNAVAILABLE"], second.messages["UNAVAILABLE"] = "one [a]", "two"
    second.messages["INTERNAL"] = "three"
    point = make_point(Load("x"), [first, second])
    assert point.messages == {"UNAVAILABLE": "one [a]", "INTERNAL": "three"}
    stream = io.StringIO()
    print_table([point], stream)
    assert "unary x2: UNAVAILABLE: one [a]\n" in stream.getvalue()
    record = json.loads(to_json([point], {}))
    (tmp_path / "new.json").write_text(json.dumps(record))
    assert read_points(tmp_path / "new.json") == [point]
    del record["points"][0]["messages"]  # of an older benchmark
    (tmp_path / "old.json").write_text(json.dumps(record))
    assert read_points(tmp_path / "old.json")[0].messages == {}


def test_no_load_is_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered_at_once(load: Load, images: list[bytes], processes: int) -> Point:
        return make_point(replace(load, concurrency=load.concurrency // processes), [Sample(1.0)] * processes)

    monkeypatch.setattr(benchmark, "_point", answered_at_once)
    (tmp_path / "x.png").touch()
    with running_server() as server:
        benchmark.main([str(tmp_path / "x.png"), "--address", server.address, "--processes", "3"])
    loads = [line.split()[2] for line in capsys.readouterr().out.splitlines() if "unary" in line]
    assert loads == ["x3", "x6", "x15"]


def test_a_narrow_terminal_gets_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    point = make_point(Load("x"), [Sample(duration_s=1.0)])
    point = replace(
        point, lines=9, lines_per_s=1234.5, latency_ms=dict.fromkeys(("p50", "p90", "p99", "max"), 56789.1)
    )
    for columns in ("40", "80", "140"):
        monkeypatch.setenv("COLUMNS", columns)
        stream = Terminal()
        print_table([point], stream)
        said = stream.getvalue()
        assert (said.count("56789.1"), said.count("1234.5"), said.count("…")) == (4, 1, 0), said
        assert ("│" in said) == (columns == "140")
