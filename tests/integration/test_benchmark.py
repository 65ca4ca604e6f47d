"""The benchmark against servers whose behaviour is known."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from helpers.fake_service import FakeServer, running_server
from helpers.server_process import ServerProcess
from longhand_client.bench.lines import draw_lines
from longhand_client.bench.load import Load, measure
from longhand_client.bench.report import make_point

SCRIPT = Path(__file__).parents[2] / "clients" / "benchmark.py"


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with running_server() as server:
        yield server


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_drawn_lines_follow_their_distribution() -> None:
    widths = []
    for line in draw_lines(200, median_width=900, spread=0.4, seed=3):
        with Image.open(io.BytesIO(line)) as image:
            assert image.height == 64
            assert min(image.tobytes()) < 100  # there is ink
            widths.append(image.width)
    widths.sort()
    assert 800 < widths[100] < 1000
    assert 1.3 < widths[168] / widths[100] < 1.7  # one standard deviation up: exp(0.4) = 1.49


@pytest.mark.parametrize("call", ["unary", "batch", "stream"])
def test_every_kind_of_call_counts_every_line(fake: FakeServer, call: str) -> None:
    load = Load(fake.address, call=call, concurrency=4, batch_size=3, duration_s=0.6, warm_up_s=0.1)  # type: ignore[arg-type]
    sample = measure(load, [b"text:a", b"bad"])
    assert sample.completed == len(sample.latencies_ms) > 10
    assert sample.errors["INVALID_ARGUMENT"] > 10
    assert set(sample.errors) == {"INVALID_ARGUMENT"}
    assert sample.stages["infer_ms"] == pytest.approx(12.0 * sample.completed)


@pytest.mark.parametrize("call", ["unary", "stream"])
def test_an_open_loop_keeps_its_rate(fake: FakeServer, call: str) -> None:
    load = Load(fake.address, call=call, rate=100.0, duration_s=2.0, warm_up_s=0.2)  # type: ignore[arg-type]
    sample = measure(load, [b"text:a"])
    # A Poisson count of 200 has a standard deviation of 14.
    assert 140 < len(sample.latencies_ms) < 260
    assert not sample.errors


def test_an_open_loop_does_not_hide_a_server_that_stops(fake: FakeServer) -> None:
    paused, begin, original = False, time.monotonic(), fake.servicer.answer

    def answer_after_a_pause(image: bytes) -> object:
        nonlocal paused
        if not paused and time.monotonic() > begin + 0.6:
            paused = True
            time.sleep(0.5)
        with fake.servicer.lock:  # one line at a time
            return original(image)

    load = Load(fake.address, rate=50.0, duration_s=1.5, warm_up_s=0.1)
    fake.servicer.answer = answer_after_a_pause  # type: ignore[method-assign]
    sample = measure(load, [b"text:a"])
    assert paused
    assert max(sample.latencies_ms) > 450


def test_processes_share_the_load(fake: FakeServer) -> None:
    load = Load(fake.address, concurrency=2, duration_s=0.5, warm_up_s=0.1)
    samples = [measure(load, [b"text:a"]), measure(replace(load, seed=1), [b"text:a"])]
    assert make_point(load, samples).concurrency == 4


def test_the_script(server: ServerProcess, tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    quick = ["--address", server.address, "--duration", "0.6", "--warm-up", "0.2", "--width", "200"]
    outcome = run(
        *quick, "--concurrency", "1,4", "--processes", "2", "--json", first, "--plots", tmp_path / "plots"
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "unary x4" in outcome.stdout
    record = json.loads(first.read_text())
    assert [point["concurrency"] for point in record["points"]] == [2, 4]
    assert all(point["lines"] > 5 and not point["errors"] for point in record["points"])
    assert record["machine"]["processor"]
    for name in ("latency_load.png", "latency_histogram.png"):
        with Image.open(tmp_path / "plots" / name) as picture:
            assert picture.width > 500
    again = run(*quick, "--concurrency", "4", "--compare", first)
    assert "unary x4: lines/s x" in again.stdout
    assert "p99 x" in again.stdout


def test_a_goal_for_the_latency(server: ServerProcess) -> None:
    quick = ["--address", server.address, "--duration", "0.4", "--warm-up", "0.1", "--width", "200"]
    outcome = run(*quick, "--slo-ms", "2000")
    assert outcome.returncode == 0, outcome.stderr
    assert "highest rate with p99 <= 2000 ms and no errors: " in outcome.stdout
    assert not outcome.stdout.rstrip().endswith(": 0.0 lines/s")


def test_what_can_go_wrong(server: ServerProcess, tmp_path: Path) -> None:
    assert run("--address", "127.0.0.1:1").returncode == 3
    assert run("--rate", "0").returncode == 2
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    outcome = run("--address", server.address, "--compare", broken)
    assert outcome.returncode == 1
    assert "no run of this benchmark" in outcome.stderr
    assert run(tmp_path / "gone.png", "--address", server.address).returncode == 1


def test_what_was_measured_is_kept_though_nobody_reads_the_table(fake: FakeServer, tmp_path: Path) -> None:
    image, kept = tmp_path / "a.png", tmp_path / "kept.json"
    image.write_bytes(b"text:a")
    loads = ["--concurrency", "1", "--duration", "0.2", "--warm-up", "0", "--json", str(kept)]
    command = [sys.executable, str(SCRIPT), str(image), "--address", fake.address, *loads]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # the first line waits to be written
    with Path("/dev/full").open("wb") as full:
        outcome = subprocess.run(command, stdout=full, check=False, timeout=90, env=environment)
    assert outcome.returncode == 1
    assert json.loads(kept.read_text())
