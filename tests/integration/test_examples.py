"""Every example runs, and so do the examples in docstrings and READMEs."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.rpc import status_pb2

import longhand_client
from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from helpers.web_process import WebProcess, free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BUF = shutil.which("buf") or shutil.which("buf", path=ROOT / "node_modules" / ".bin")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, text in (("1", "abc"), ("2", "de ab")):
        (folder / f"{name}.png").write_bytes(draw_image(text))
    (folder / "labels.tsv").write_text("1.png\tabc\n2.png\tde bb\n")
    return folder


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_all_examples_are_listed_and_run_here() -> None:
    listed = set(re.findall(r"^\| `([^`]+)`", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert listed == {
        path.name for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")
    }
    tests = Path(__file__).read_text()
    assert all(Path(name).stem in tests for name in listed)


def test_raw_stub_is_short(server: ServerProcess, scans: Path) -> None:
    assert run("raw_stub.py", scans / "1.png", server.address).stdout == "abc\n"
    lines = [line for line in (EXAMPLES / "raw_stub.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 15


def test_folder_job(server: ServerProcess, scans: Path, tmp_path: Path) -> None:
    (scans / "bad.png").write_bytes(b"no image")
    outcome = run("folder_job.py", scans, tmp_path / "out.tsv", server.address)
    assert outcome.returncode == 1
    assert "bad.png" in outcome.stderr
    rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert [row[2] for row in rows] == ["abc", "de ab"]


def test_folder_job_with_a_name_that_is_not_utf_8(server: ServerProcess, scans: Path, tmp_path: Path) -> None:
    (scans / os.fsdecode(b"odd\xff.png")).write_bytes(draw_image("cab"))
    assert run("folder_job.py", scans, tmp_path / "out.tsv", server.address).returncode == 0
    assert b"odd\xff.png\t" in (tmp_path / "out.tsv").read_bytes()


def test_evaluate(server: ServerProcess, scans: Path) -> None:
    outcome = run("evaluate.py", scans / "labels.tsv", server.address)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("CER 12.50 %  WER 33.33 %  exact 1 of 2 lines") == 2


@pytest.mark.parametrize(
    "name", ["raw_stub.py", "folder_job.py", "evaluate.py", "grpcurl.sh", "fine_tune.sh"]
)
def test_without_arguments_an_example_says_what_it_needs(name: str) -> None:
    if name.endswith(".sh"):
        outcome = subprocess.run(["bash", EXAMPLES / name], capture_output=True, text=True, check=False)
    else:
        outcome = run(name)
    assert outcome.returncode != 0
    assert f"examples/{name} " in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_without_a_server_an_example_says_so(scans: Path, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    for name, *arguments in (
        ("raw_stub.py", scans / "1.png"),
        ("folder_job.py", scans, tmp_path / "out.tsv"),
        ("evaluate.py", scans / "labels.tsv"),
    ):
        outcome = run(name, *arguments, nobody)
        assert outcome.returncode == 1
        assert nobody in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1


def test_files_that_are_not_there(scans: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    outcome = run("folder_job.py", missing, tmp_path / "out.tsv")
    assert (outcome.returncode, outcome.stderr) == (2, f"{missing}: no such folder\n")
    assert not (tmp_path / "out.tsv").exists()
    (scans / "names.tsv").write_text("1.png\n")
    for labels in (missing, scans / "names.tsv"):
        outcome = run("evaluate.py", labels)
        assert outcome.returncode == 1
        assert str(labels) in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1


def test_stubs_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    text = (EXAMPLES / "README.md").read_text()
    (command,) = re.findall(r"^python (-m grpc_tools.protoc .*)$", text, re.MULTILINE)
    command = f'python() {{ {sys.executable} "$@"; }}; python {command.replace("=out", f"={tmp_path}")}'
    outcome = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    made = {path.name for path in (tmp_path / "longhand" / "v1").iterdir()}
    assert made == {"recognition_pb2.py", "recognition_pb2_grpc.py"}


def test_label_service(server: ServerProcess, scans: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "examples.label_service:app", "--port", str(port)]
    environment = {**os.environ, "LONGHAND_ADDRESS": server.address}
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, env=environment)
    try:
        service = WebProcess(port)
        service.wait(process, "/label")
        answer = service.ask("/label", method="POST", body=(scans / "1.png").read_bytes())
        assert json.loads(answer.body)["text"] == "abc"
        assert service.ask("/label", method="POST", body=b"no image").status == 400
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.skipif(BUF is None, reason="needs buf: npm install --no-save @bufbuild/buf")
def test_calls_from_a_shell(server: ServerProcess, scans: Path) -> None:
    command = [str(EXAMPLES / "grpcurl.sh"), str(scans / "1.png"), server.address]
    environment = {**os.environ, "BUF": str(BUF)}
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    assert '"name": "toy"' in outcome.stdout
    assert '"text": "abc"' in outcome.stdout


@pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "node_modules" / "@grpc" / "grpc-js").exists(),
    reason="needs node and grpc-js: npm install --no-save @grpc/grpc-js @grpc/proto-loader",
)
def test_read_lines_from_node(server: ServerProcess, scans: Path) -> None:
    (scans / "bad.png").write_bytes(b"no image")
    names = ("1.png", "bad.png", "missing.png", "2.png")
    command = ["node", str(EXAMPLES / "read_lines.mjs"), server.address, *names]
    environment = {**os.environ, "GOOGLE_PROTOS": str(Path(status_pb2.__file__).parents[2])}
    outcome = subprocess.run(
        command, cwd=scans, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert sorted(outcome.stdout.splitlines()) == ["1.png\tabc", "2.png\tde ab"]
    bad, missing = sorted(outcome.stderr.splitlines())
    assert bad.startswith("bad.png: INVALID_IMAGE: ")
    assert missing.startswith("missing.png: ENOENT")
    assert outcome.returncode == 1


@pytest.mark.slow
def test_fine_tune(server: ServerProcess, scans: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch (make test TORCH=no leaves it out)")
    from helpers.training_runs import STARTED_ANEW, write_small_checkpoint

    start = write_small_checkpoint(tmp_path / "best.pt")
    tiny = "--channels 4 4 4 4 --blocks 1 1 1 --hidden 8 --layers 1 --batch-pixels 2000 --workers 0"
    command = ["bash", str(EXAMPLES / "fine_tune.sh"), str(scans), str(start), str(tmp_path / "out"), "0.01"]
    environment = {**os.environ, **STARTED_ANEW, "PYTHON": sys.executable, "TRAIN_ARGS": tiny}
    outcome = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=110, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    manifest = json.loads((tmp_path / "out" / "model" / "bundle.json").read_text())
    assert manifest["name"] == "mine"


@pytest.mark.parametrize("name", ["longhand_client", "longhand_client.client", "longhand_client.aio"])
def test_docstrings(
    server: ServerProcess, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The sample in the repository says something else to the toy model; a bar image takes its place.
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "sample_line.png").write_bytes(draw_image("abc"))
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"address": server.address})
    assert found.attempted > 0
    assert found.failed == 0


def test_python_in_the_readmes(server: ServerProcess, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scans / "line.png").write_bytes(draw_image("abc"))
    monkeypatch.chdir(scans)
    blocks = [
        block
        for readme in (ROOT / "README.md", ROOT / "clients" / "README.md")
        for block in re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(blocks) >= 4
    for block in blocks:
        exec(
            compile(block.replace("localhost:50051", server.address), "README", "exec"),
            {"__name__": "readme"},
        )


def test_every_public_name_is_documented() -> None:
    missing = [
        name
        for name in longhand_client.__all__
        if callable(getattr(longhand_client, name)) and not getattr(longhand_client, name).__doc__
    ]
    assert missing == []
