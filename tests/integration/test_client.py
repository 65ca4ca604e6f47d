"""The client library and the command line against a real server, the plain one and Ray Serve."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from PIL import Image

from helpers.ray_process import RayProcess
from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image, draw_text, write_bundle
from helpers.web_process import free_port
from longhand_client import (
    AsyncRecognizerClient,
    InvalidImageError,
    ModelNotFoundError,
    RecognitionOptions,
    RecognizerClient,
)

Engine: TypeAlias = ServerProcess | RayProcess

CLI = [sys.executable, str(Path(__file__).parents[2] / "clients" / "cli.py")]


def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*CLI, *map(str, arguments)], input=stdin, capture_output=True, timeout=60, check=False
    )


@pytest.fixture
def client(engine: Engine) -> Iterator[RecognizerClient]:
    with RecognizerClient(engine.address) as client:
        yield client


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, text in (("1", "abc"), ("2", "de ab"), ("3", "cab")):
        (folder / f"{name}.png").write_bytes(draw_image(text))
    return folder


def test_every_kind_of_image(client: RecognizerClient, scans: Path) -> None:
    array = draw_text("abc")
    for image in (scans / "1.png", (scans / "1.png").read_bytes(), array, Image.fromarray(array)):
        assert client.recognize(image).text == "abc"
    with (scans / "1.png").open("rb") as file:
        assert client.recognize(file).text == "abc"


def test_details_of_a_reading(client: RecognizerClient) -> None:
    options = RecognitionOptions(words=True, characters=True, alternatives=3)
    read = client.recognize(draw_text("de ab"), options)
    assert [word.text for word in read.words] == ["de", "ab"]
    assert "".join(one.text for one in read.characters) == "de ab"
    edges = [edge for one in read.characters for edge in (one.x_start, one.x_end)]
    assert edges == sorted(edges)
    assert 0 <= edges[0] < edges[-1] <= read.image_width
    assert read.alternatives[0].text == "de ab"
    assert 0 < read.confidence <= 1
    assert read.timings.infer_ms > 0


def test_errors(client: RecognizerClient) -> None:
    with pytest.raises(InvalidImageError) as caught:
        client.recognize(b"no image")
    assert caught.value.reason == "INVALID_IMAGE"
    with pytest.raises(ModelNotFoundError, match="nothing"):
        client.recognize(draw_text("a"), RecognitionOptions(model="nothing"))


def test_batch_and_stream_agree_with_single_calls(client: RecognizerClient) -> None:
    texts = ["a", "bc", "d e", "abcde"] * 5
    images = [draw_image(text) for text in texts]
    images[3] = b"broken"
    single = [client.recognize(image).text for image in images[:3]]
    batch = client.recognize_batch(images)
    stream = list(client.recognize_stream(images))
    assert single == texts[:3]
    for outcomes in (batch, stream):
        read = [outcome.transcription.text if outcome.transcription else None for outcome in outcomes]
        assert read == [*texts[:3], None, *texts[4:]]
        assert isinstance(outcomes[3].error, InvalidImageError)


async def test_asyncio(engine: Engine) -> None:
    async with AsyncRecognizerClient(engine.address) as client:
        assert (await client.recognize(draw_text("abc"))).text == "abc"
        assert await client.health() == "SERVING"
        read = [one.result().text async for one in client.recognize_stream([draw_text("a"), draw_text("b")])]
        assert read == ["a", "b"]
        assert (await client.recognize_batch([draw_text("c")]))[0].result().text == "c"
        assert [model.name for model in await client.models()] == ["toy"]


def test_text_and_json(engine: Engine, scans: Path) -> None:
    one = run(scans / "1.png", "--address", engine.address)
    assert (one.returncode, one.stdout, one.stderr) == (0, b"abc\n", b"")
    several = run("--json", scans, "--address", engine.address)
    records = [json.loads(line) for line in several.stdout.splitlines()]
    assert [(Path(record["file"]).name, record["text"]) for record in records] == [
        ("1.png", "abc"),
        ("2.png", "de ab"),
        ("3.png", "cab"),
    ]
    assert all(set(record) == {"file", "text", "confidence"} for record in records)


def test_standard_input(engine: Engine, scans: Path) -> None:
    outcome = run("-", "--address", engine.address, stdin=(scans / "1.png").read_bytes())
    assert (outcome.returncode, outcome.stdout) == (0, b"abc\n")


def test_failures_are_listed_and_the_rest_is_read(engine: Engine, scans: Path) -> None:
    (scans / "bad.png").write_bytes(b"no image")
    outcome = run(scans, scans / "gone.png", scans / "none*", "--address", engine.address)
    assert outcome.returncode == 1
    assert len(outcome.stdout.splitlines()) == 3
    message = outcome.stderr.decode()
    assert message.endswith("3 images could not be read\n")
    for name in ("bad.png", "gone.png: No such file", "none*: no file matches"):
        assert name in message


def test_reference_scores(engine: Engine, scans: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("1.png\tabc\n2.png\tde bb\n")
    outcome = run(scans, "--reference", labels, "--address", engine.address)
    assert outcome.returncode == 0
    text = outcome.stdout.decode()
    assert "de [-b-]{+a+}b" in text
    assert text.endswith("CER 12.50 %  WER 33.33 %  exact 1 of 2 lines\n")
    assert "3.png: no reference" in outcome.stderr.decode()


@pytest.mark.parametrize("kind", ["json", "tsv"])
def test_resume_reads_only_what_is_missing(engine: Engine, scans: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    command = ("--address", engine.address, f"--{kind}", "--out", out, "--resume")
    assert run(scans / "1.png", scans / "2.png", *command).returncode == 0
    before = out.read_bytes()
    out.write_bytes(before[:-5])  # a crash in the middle of the last line
    outcome = run(scans, *command)
    assert outcome.returncode == 0
    assert b"1 image read by an earlier run" in outcome.stderr
    assert out.read_bytes().startswith(before)
    assert len(out.read_text().splitlines()) == len(before.splitlines()) + 1


def test_archive_formats(engine: Engine, scans: Path, tmp_path: Path) -> None:
    one = run(scans / "2.png", "--format", "alto", "--address", engine.address)
    strings = [
        element.get("CONTENT") for element in ET.fromstring(one.stdout).iter() if "CONTENT" in element.attrib
    ]
    assert [text for text in strings if text and len(text) > 1] == ["de", "ab"]
    html = ET.fromstring(run(scans / "2.png", "--format", "hocr", "--address", engine.address).stdout)
    words = [element for element in html.iter() if element.get("class") == "ocrx_word"]
    assert [word.text for word in words] == ["de", "ab"]
    assert all(re.fullmatch(r"bbox \d+ 0 \d+ \d+; x_wconf \d+", word.get("title", "")) for word in words)
    several = run(scans, "--format", "page", "--out", tmp_path / "xml", "--address", engine.address)
    assert several.returncode == 0, several.stderr
    files = sorted((tmp_path / "xml").iterdir())
    assert len(files) == 3
    assert all(ET.parse(file).getroot().tag.endswith("PcGts") for file in files)
    assert run(scans, "--format", "alto", "--address", engine.address).returncode == 2


def test_show(engine: Engine, scans: Path, tmp_path: Path) -> None:
    run(scans / "1.png", "--show", tmp_path / "shown.png", "--address", engine.address)
    with Image.open(scans / "1.png") as sent, Image.open(tmp_path / "shown.png") as shown:
        assert shown.width == sent.width
        assert shown.height > sent.height
    assert run(scans, "--show", tmp_path / "all", "--address", engine.address).returncode == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["1.png", "2.png", "3.png"]


def test_recognition_arguments(engine: Engine, scans: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("abc\t2.5\n")
    arguments = ["--decoder", "beam", "--beam-width", "5", "--lm-weight", "0.5", "--hotwords", words]
    arguments += ["--alternatives", "2", "--words", "--characters", "--allowed-characters", "abc"]
    outcome = run(scans / "1.png", "--json", *arguments, "--address", engine.address)
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads(outcome.stdout)
    assert record["text"] == "abc"
    assert [word["text"] for word in record["words"]] == ["abc"]
    assert len(record["characters"]) == 3
    assert 1 <= len(record["alternatives"]) <= 2
    refused = run(scans / "1.png", "--model", "nothing", "--address", engine.address)
    assert refused.returncode == 1
    assert b"nothing" in refused.stderr


def test_subcommands(engine: Engine) -> None:
    assert run("health", "--address", engine.address).stdout == b"SERVING\n"
    listed = run("models", "--address", engine.address).stdout.decode()
    assert listed.startswith("* toy 1.0.0  ready on cpu")
    assert json.loads(run("models", "--json", "--address", engine.address).stdout)["name"] == "toy"
    assert b"--port" in run("serve", "--help").stdout


def test_the_command_serve_is_the_server(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    model = write_bundle(tmp_path / "bundle")
    command = [*CLI, "serve", "--model", str(model), "--port", "0", "--port-file", str(port_file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for_lines(port_file, 1)
        address = f"127.0.0.1:{port_file.read_text().strip()}"
        assert run("health", "--address", address).stdout == b"SERVING\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0  # it drained
        assert run("health", "--address", address).returncode == 3
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_server_that_dies_midway(scans: Path, tmp_path: Path) -> None:
    server = ServerProcess(write_bundle(tmp_path / "bundle"), tmp_path / "server")
    manifest = tmp_path / "many.tsv"
    manifest.write_text(f"{scans}/1.png\n" * 100_000)
    out = tmp_path / "out.json"
    command = [*CLI, "--manifest", str(manifest), "--json", "--out", str(out), "--address", server.address]
    command += ["--timeout", "3"]  # how long it waits for one that may only restart
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        _wait_for_lines(out, 20)
        server.process.kill()
        _, message = process.communicate(timeout=60)
    server.process.wait()
    assert process.returncode == 3
    assert b"no Longhand server answers at" in message
    assert len([json.loads(line) for line in out.read_text().splitlines()]) >= 20


@pytest.mark.slow
def test_interrupting_keeps_what_is_done(server: ServerProcess, scans: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "many.tsv"
    manifest.write_text(f"{scans}/1.png\n" * 100_000)
    out = tmp_path / "out.json"
    command = [*CLI, "--manifest", str(manifest), "--json", "--out", str(out), "--address", server.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        _wait_for_lines(out, 20)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=30)
    assert process.returncode == 130, message
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"stopped; {len(records)} images read" in message.decode()
    assert b"Traceback" not in message


def test_a_closed_pipe_is_no_error(server: ServerProcess, scans: Path) -> None:
    command = [*CLI, *[str(scans / "1.png")] * 300, "--address", server.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    message = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert b"Traceback" not in message


def test_local_needs_no_server(scans: Path) -> None:
    if not _default_model_is_there():
        pytest.skip("the default model is not part of this installation")
    outcome = run("--local", scans / "1.png")
    assert outcome.returncode == 0, outcome.stderr
    assert io.BytesIO(outcome.stdout).read().endswith(b"\n")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_local_server_ends_with_its_program(ending: signal.Signals) -> None:
    if not _default_model_is_there():
        pytest.skip("the default model is not part of this installation")
    command = [sys.executable, "-m", "longhand_web", "--local", "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(line.rpartition(":")[2].strip(" )\n"))
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        time.sleep(0.5)  # the page's own server starts after it has said where it is
        process.send_signal(ending)
        process.wait(40)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def _default_model_is_there() -> bool:
    import longhand_server

    return (Path(longhand_server.__file__).parent / "models" / "en" / "bundle.json").exists()


def _wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} has no {count} lines after 30 s (process id {os.getpid()})")
