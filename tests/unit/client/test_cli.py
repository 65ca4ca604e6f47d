from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.web_process import free_port
from longhand.v1 import recognition_pb2 as pb
from longhand_client import Outcome, RecognitionOptions, RecognizerClient, Transcription, cli
from longhand_client.command.inputs import Item
from longhand_client.command.read import ArchiveWriter, Drawings, ReadJob, Report, _finish, interrupts_held
from longhand_client.results import transcription_from_proto

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


def test_options_stand_anywhere_and_end_where_said(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lines)
    (lines / "--json").write_bytes(b"text:an odd name")
    arguments = [
        "one.png",
        "--address",
        fake.address,
        "two.png",
        "--format",
        "text",
        "--",
        "--json",
        "three.png",
    ]
    assert cli.main(arguments) == 0
    shown = "one.png: line one\ntwo.png: line two\n--json: an odd name\nthree.png: line three\n"
    assert capsys.readouterr().out == shown


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
    address = f"127.0.0.1:{free_port()}"
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
        ("--hotwords", broken, "broken.tsv line 2: the row is not UTF-8 text"),
        ("--manifest", lines / "gone.tsv", "gone.tsv: No such file or directory"),
        ("--reference", broken, "broken.tsv line 2: the row is not UTF-8 text"),
        ("--token-file", lines, f"{lines}: Is a directory"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(fake.address, lines / "one.png", argument, path)
        assert caught.value.code == 2
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name at least one image"),
        (["--unknown", "x.png"], "--unknown"),
        (["x.png", "--address", "host:port"], "host:port"),
        (["x.png", "--timeout", "soon"], "got soon, need a number above 0"),
        (["x.png", "--lm-weight", "-1"], "got -1, need a number of at least 0"),
        (["x.png", "--alternatives", "2.5"], "got 2.5, need a whole number of at least 1"),
        (["x.png", "--out", "x.png"], "got the name of an image"),
        (["x.png", "--show", "read.jpg"], "draws PNG files only"),
        (["x.png", "y.png", "--show", "read.png"], "needs a folder, not one PNG file"),
        (["x.png", "y.png", "--format", "alto"], "of several images needs --out FOLDER"),
        (["x.png", "--json", "--out", "-", "--resume"], "--resume needs --out FILE"),
        (["x.png", "--reference", "r.tsv", "--out", "./r.tsv"], "is read as well"),
        (["x.png", "--tsv", "--words"], "take --json"),
        (["x.png", "--decoder", "greedy", "--alternatives", "3"], "one reading only"),
        (["x.png", "--format", "alto", "--alternatives", "3"], "one reading a line"),
        (["x.png", "--address", "http://localhost:50051"], "without http://"),
        (["x.png", "--tls-key", str(SCRIPT)], "no PEM file"),
        (["x.png", "--tls-ca", os.devnull, "--token-file", str(SCRIPT)], "no PEM file"),
        (["--address", "localhost:1", "health"], "longhand health"),
        (["x.png", "--local", "--tls-ca", "ca.pem"], "leave out --address, --token-file and --tls"),
        (["x.png", "--local", "--token-file", "token"], "leave out --address, --token-file and --tls"),
        (["x.png", "--decoder", "greedy", "--hotwords", "words"], "leave out --decoder greedy"),
        (["x.png", "--decoder", "greedy", "--beam-width", "5"], "leave out --decoder greedy"),
        (["x.png", "--decoder", "greedy", "--lm-weight", "0"], "leave out --decoder greedy"),
        (["health", "--address", "localhost:abc"], "abc"),
        (["models", "--token-file", "gone"], "gone: No such file"),
    ],
)
def test_usage(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "usage:" in message
    assert message.count("\n") <= 4  # what is wrong is seen at once, not below all options
    assert problem in message


@pytest.mark.parametrize("content", [b"", b" \n", b"one\ntwo\n", b"caf\xc3\xa9"])
def test_a_file_that_holds_no_token(
    content: bytes, fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lines / "token").write_bytes(content)
    with pytest.raises(SystemExit):
        run(fake.address, lines / "one.png", "--token-file", lines / "token")
    assert "need one token" in capsys.readouterr().err


def test_a_drawing_never_replaces_its_image(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (lines / "one.png").read_bytes()
    for target in (lines, lines / "one.png"):
        assert run(fake.address, lines / "one.png", "--show", target) == 1
        assert "would replace it" in capsys.readouterr().err
        assert (lines / "one.png").read_bytes() == before


def test_a_drawing_needs_characters(fake: FakeServer, lines: Path, tmp_path: Path) -> None:
    run(fake.address, lines / "one.png", "--show", tmp_path / "shown")
    assert fake.servicer.requests[-1].config.options.include_characters


def test_each_drawing_has_a_name_of_its_own() -> None:
    drawings = Drawings(Path("shown"))
    names = ["a/001.png", "b/001.png", "x.bmp", "x.tif", "x.TIF"]
    for name in names:
        drawings.announce(name)
    assert [drawings.file_of(name) for name in names] == [
        "001.png",
        "b_001.png.png",
        "x.png",
        "x.tif.png",
        "x.TIF-2.png",
    ]


@pytest.mark.parametrize("kind", ["text", "json", "tsv"])
def test_names_that_are_not_utf_8(fake: FakeServer, lines: Path, kind: str) -> None:
    odd = os.fsdecode(os.fsencode(lines) + b"/odd\xff.png")
    Path(odd).write_bytes(b"text:line odd")
    out = lines / "out"
    for more in ([], ["--resume"])[: 1 if kind == "text" else 2]:
        assert run(fake.address, odd, lines / "one.png", "--format", kind, "--out", out, *more) == 0
    content = out.read_bytes()
    assert content.count(b"line odd") == content.count(b"line one") == 1
    if kind == "json":
        assert json.loads(content.splitlines()[0])["file"] == odd
    else:
        assert b"odd\xff.png" in content


def test_archives_are_utf_8_whatever_their_image_s_name_is(
    fake: FakeServer, lines: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    odd = os.fsdecode(os.fsencode(lines) + b"/odd\xff.png")
    Path(odd).write_bytes("text:é".encode())
    assert run(fake.address, odd, "--format", "hocr") == 0
    content = capfdbinary.readouterr().out
    assert b"odd?.png" in content
    assert content.decode().count(">é<") == 1


def test_quotation_marks_in_a_name_do_not_end_it_in_hocr(
    fake: FakeServer, lines: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (lines / 'a".png').write_bytes(b"text:line")
    assert run(fake.address, lines / 'a".png', "--format", "hocr") == 0
    assert f"image &quot;{lines}/a'.png&quot;; bbox" in capfd.readouterr().out


def test_a_dash_is_standard_output(
    fake: FakeServer, lines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lines)
    assert run(fake.address, "one.png", "--out", "-") == 0
    assert capsys.readouterr().out == "line one\n"
    assert not Path("-").exists()


@pytest.mark.parametrize(("closing", "code"), [("<&-", 1), (">&-", 0), ("2>&-", 0)])
def test_streams_that_the_shell_has_closed(fake: FakeServer, lines: Path, closing: str, code: int) -> None:
    image = "-" if closing == "<&-" else lines / "one.png"
    command = f"'{sys.executable}' '{SCRIPT}' '{image}' --address {fake.address} {closing}"
    outcome = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert outcome.returncode == code
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ("line one\n" if closing == "2>&-" else "")


@pytest.mark.parametrize("script", [SCRIPT, SCRIPT.with_name("benchmark.py")])
@pytest.mark.parametrize("full", [False, True])
def test_output_that_nobody_takes(script: Path, full: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if full:
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    outcome = subprocess.run(
        [sys.executable, str(script), "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=buffered,
        check=False,
    )
    os.close(writing)
    assert outcome.returncode == full
    assert outcome.stderr.partition(": ")[2] == ("No space left on device\n" if full else "")


def test_a_manifest_that_a_shell_pipes(fake: FakeServer, lines: Path) -> None:
    rows = "".join(f"{lines}/{name}.png\n" for name in ("one", "two"))
    command = f"'{sys.executable}' '{SCRIPT}' --address {fake.address} --manifest <(printf '{rows}')"
    outcome = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert outcome.stdout == f"{lines}/one.png: line one\n{lines}/two.png: line two\n"


def test_standard_input_without_an_end(fake: FakeServer) -> None:
    command = [sys.executable, str(SCRIPT), "-", "--address", fake.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(16 * 1024 * 1024 + 1))
        process.stdin.flush()
        assert b"at most 16777216 are sent" in process.stderr.readline()
    assert process.returncode == 1


def test_output_that_cannot_be_written(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake.address, lines / "one.png", "--format", "alto", "--out", lines / "one.png") == 1
    assert f"{lines}/one.png: File exists" in capsys.readouterr().err


def test_interrupted_while_waiting_for_standard_input(fake: FakeServer) -> None:
    command = [sys.executable, str(SCRIPT), "-", "--address", fake.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not fake.servicer.requests and time.monotonic() < deadline:
            time.sleep(0.05)  # until its stream is open: then it waits for its image
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=30)
    assert (process.returncode, message) == (130, "longhand: stopped; 0 images read\n")


@pytest.mark.parametrize(("status", "code"), [("SERVING", 0), ("NOT_SERVING", 1)])
def test_health_is_for_scripts(
    status: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RecognizerClient, "health", lambda _: status)
    assert cli.main(["health"]) == code
    assert capsys.readouterr().out == f"{status}\n"


def test_ctrl_c_takes_effect_behind_what_it_must_not_cut() -> None:
    written = []

    def write() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            written.append("whole")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_leaves_no_reading_that_is_written_and_not_counted() -> None:
    written = []

    class Interrupted:
        def write(self, name: str, transcription: Transcription, extra: dict[str, Any]) -> None:
            signal.raise_signal(signal.SIGINT)
            written.append(name)

    reading = transcription_from_proto(pb.RecognitionResult(text="ab"))
    job, report = ReadJob(RecognitionOptions(), Interrupted()), Report()
    with pytest.raises(KeyboardInterrupt):
        _finish(Item("a.png", b"a"), Outcome(0, reading, None, b"a"), job, report)
    assert (written, report.read) == (["a.png"], 1)


def test_the_script_says_which_environment_is_needed() -> None:
    command = [sys.executable, "-S", str(SCRIPT), "x.png"]  # -S: without installed packages
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("longhand: No module named")
    assert ".venv/bin/activate" in outcome.stderr


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    project = tomllib.loads((SCRIPT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert capsys.readouterr().out == f"longhand {project['version']}\n"


def test_the_script_is_the_same_command(fake: FakeServer, lines: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(lines / "one.png"), "--address", fake.address]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, "line one\n"), outcome.stderr


def test_what_is_no_file_is_named(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake.address, "http://host/x.png", "") == 1
    errors = capsys.readouterr().err
    assert "http://host/x.png: addresses of the web are not fetched: curl" in errors
    assert "'': no name of a file" in errors
    assert errors.endswith("longhand: 2 images could not be read\n")


def test_archives_overwrite_none_of_each_other(tmp_path: Path) -> None:
    writer = ArchiveWriter("alto", tmp_path)
    for name in ("a/b.png", "a_b.png", "A_b.png", "C.png", "c.png"):
        writer.write(name, transcription_from_proto(pb.RecognitionResult(text=name)), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "A_b.png-3.xml",
        "C.png.xml",
        "a_b.png-2.xml",
        "a_b.png.xml",
        "c.png-2.xml",
    ]


def test_references_of_other_images_are_a_failure(fake: FakeServer, lines: Path, tmp_path: Path) -> None:
    references = tmp_path / "references.tsv"
    references.write_text("other.png\ttext\n")
    assert run(fake.address, lines / "one.png", "--reference", references) == 1


def _on_a_terminal(arguments: list[str], **environment: str) -> str:
    """What a person sees of the command on a terminal of 40 columns, control sequences included."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    command = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**plain, "TERM": "xterm", **environment},
    )
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while part := os.read(terminal, 10_000):
            seen += part
    os.close(terminal)
    command.wait(30)
    return seen.decode()


def test_readings_on_a_terminal_stand_alone(fake: FakeServer, lines: Path, tmp_path: Path) -> None:
    one = str(lines / "one.png")
    assert _on_a_terminal([one, "--address", fake.address]) == "line one\r\n"
    out = tmp_path / "out.txt"
    seen = _on_a_terminal([one, "--address", fake.address, "--out", str(out)])
    assert "1/1 (100 %)" in seen
    assert max(len(line.split("\x1b[K")[-1]) for line in seen.split("\r")) < 40


def test_colours_are_for_terminals_that_want_them(fake: FakeServer, lines: Path, tmp_path: Path) -> None:
    references = tmp_path / "references.tsv"
    references.write_text("one.png\tlineone\n")
    arguments = [str(lines / "one.png"), "--address", fake.address, "--reference", str(references)]
    assert "\x1b[32m\u2423\x1b[0m" in _on_a_terminal(arguments)
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "{+ +}" in _on_a_terminal(arguments, **environment)


def test_ink_that_gives_no_text_is_told(
    fake: FakeServer, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lines / "page.png").write_bytes(b"text:")  # the server is 75 % sure of that
    assert run(fake.address, lines / "page.png") == 0
    assert capsys.readouterr() == (
        "\n",
        f"longhand: {lines}/page.png: nothing could be read: is it one line? (cut a page into its lines first)\n",
    )


def test_a_blank_image_is_told_where_it_is_the_only_one(
    lines: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = pb.RecognitionResult(text="", confidence=1.0)
    monkeypatch.setattr(fake.servicer, "answer", lambda _: blank)
    assert run(fake.address, lines / "one.png") == 0
    assert capsys.readouterr() == ("\n", f"longhand: {lines}/one.png: nothing is written on it\n")
    assert run(fake.address, lines / "one.png", lines / "two.png") == 0
    assert capsys.readouterr().err == ""
