"""`longhand batch`: every kind of input, one row for every image, killed and resumed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.process_tree import process_tree, title
from helpers.toy_model import ALPHABET, draw_image
from helpers.web_process import free_port
from longhand_server import bulk

CLI = [sys.executable, str(Path(__file__).parents[2] / "clients" / "cli.py"), "batch"]
ON_RAY = pytest.param(("--address", "local", "--readers", "2"), marks=pytest.mark.scale, id="ray")
PLACES = pytest.mark.parametrize("place", [pytest.param((), id="process"), ON_RAY])
_ENVIRONMENT = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}


def some_text(seed: int) -> str:
    return "".join(random.Random(seed).choices(ALPHABET.replace(" ", ""), k=3 + seed % 9))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Files with the text that they show, in subfolders."""
    folder = tmp_path_factory.mktemp("images")
    files = {}
    for n in range(24):
        path = folder / str(n % 3) / f"{n:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(draw_image(some_text(n)))
        files[path] = some_text(n)
    return files


def run_elsewhere(
    *arguments: object, environment: Mapping[str, str] = _ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    if "--address" in arguments and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed here: make test-scale brings it")
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process, which has loaded already what takes a new one most of its time.

    `longhand batch` replaces its own process by the program of which this is the main function.
    """
    command = list(map(str, arguments))
    printed, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        try:
            status = bulk.main(command)
        except SystemExit as end:  # by argparse
            status = int(str(end.code))
    return subprocess.CompletedProcess(command, status, printed.getvalue(), complaints.getvalue())


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """All rows of an output folder in the order of their numbers."""
    rows: list[dict[str, Any]] = []
    for path in folder.glob("part-*.jsonl"):
        rows += map(json.loads, path.read_text().splitlines())
    for path in folder.glob("part-*.parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        rows += parquet.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: int(row["number"]))


def check_rows(rows: Sequence[Mapping[str, Any]], expected: Sequence[tuple[str, str | None]]) -> None:
    """Each row has its number once, the name's end, and either its text or an error."""
    assert [row["number"] for row in rows] == list(range(len(expected)))
    for row, (name, text) in zip(rows, expected, strict=True):
        assert row["name"].endswith(name), row
        assert row["text"] == text, row
        assert (row["confidence"] is None) == (row["error"] is not None) == (text is None), row


@PLACES
def test_a_folder(place: tuple[str, ...], toy_bundle: Path, images: dict[Path, str], tmp_path: Path) -> None:
    folder = next(iter(images)).parents[1]
    out = tmp_path / "out"
    outcome = run_elsewhere(
        folder, "--out", out, "--format", "jsonl", "--model", toy_bundle, "--chunk", 5, *place
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "read 24 images in" in outcome.stderr
    check_rows(rows_in(out), [(path.name, images[path]) for path in sorted(images)])
    assert len(list(out.glob("part-*"))) == 5


def test_a_manifest_with_rows_that_name_nothing(
    toy_bundle: Path, images: dict[Path, str], tmp_path: Path
) -> None:
    first, second = list(images)[:2]
    (tmp_path / "broken.png").write_bytes(b"no image")
    manifest = tmp_path / "some.tsv"
    manifest.write_bytes(
        f"{first}\tanything\n\nbroken.png\n".encode() + b"\xff\n" + f"gone.png\n{second}\n{first}\n".encode()
    )
    out = tmp_path / "out"
    outcome = run(manifest, "--out", out, "--format", "jsonl", "--model", toy_bundle, "--chunk", 2)
    assert outcome.returncode == 1
    assert "3 could not be read" in outcome.stderr
    rows = rows_in(out)
    names = [first.name, "broken.png", "line 4", "gone.png", second.name, first.name]
    texts = [images[first], None, None, None, images[second], images[first]]
    check_rows(rows, list(zip(names, texts, strict=True)))
    errors = [row["error"] or "" for row in rows]
    assert "not an image" in errors[1]
    assert errors[2] == "the row is not UTF-8 text"
    assert "No such file" in errors[3]


def write_tar(path: Path, samples: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in samples.items():
            for member, data in ((f"{name}.png", content), (f"{name}.txt", b"a label")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def test_webdataset_tars(toy_bundle: Path, tmp_path: Path) -> None:
    texts = [some_text(n) for n in range(11)]
    # The long names need headers of their own, which is where a chunk may begin.
    names = [f"{'long' * 40}/{n}" for n in range(11)]
    write_tar(tmp_path / "a.tar", {n: draw_image(text) for n, text in zip(names, texts, strict=True)})
    write_tar(tmp_path / "b.tar", {"big": b"\x89PNG" + bytes(1 << 20), "good": draw_image("abc")})
    out = tmp_path / "out"
    options = ("--format", "jsonl", "--chunk", 3, "--max-image-bytes", 1 << 20)
    outcome = run(tmp_path / "a.tar", tmp_path / "b.tar", "--out", out, "--model", toy_bundle, *options)
    assert outcome.returncode == 1, outcome.stderr
    rows = rows_in(out)
    expected = [(f"a.tar/{n}.png", text) for n, text in zip(names, texts, strict=True)]
    check_rows(rows, [*expected, ("b.tar/big.png", None), ("b.tar/good.png", "abc")])
    assert "image file of 1048580 bytes, at most 1048576" in rows[11]["error"]


@pytest.mark.parametrize("damage", ["header", "zeros", "cut between members", "cut in a header"])
def test_a_tar_with_a_damaged_middle_is_refused(damage: str, toy_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {str(n): draw_image(some_text(n)) for n in range(6)})
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[6].offset
    if damage == "header":
        content[middle : middle + 8] = b"\xff" * 8
    elif damage == "zeros":
        content[middle : middle + 512] = bytes(512)
    else:
        del content[middle + (100 if damage == "cut in a header" else 0) :]
    path.write_bytes(content)
    outcome = run(path, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    assert outcome.returncode == 2
    assert "no webdataset tar, or a damaged one" in outcome.stderr


def test_links_in_a_tar_are_told(toy_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        image = draw_image("abc")
        info = tarfile.TarInfo("a.png")
        info.size = len(image)
        tar.addfile(info, io.BytesIO(image))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        tar.addfile(link)
    outcome = run(path, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    assert outcome.returncode == 1
    rows = rows_in(tmp_path / "out")
    check_rows(rows, [("a.tar/a.png", "abc"), ("a.tar/b.png", None)])
    assert "a link to a.png, which is not followed" in rows[1]["error"]


def test_folders_behind_links_and_odd_files(toy_bundle: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.mkdir()
    (shard / "a.png").write_bytes(draw_image("abc"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(shard)
    (shard / "round").symlink_to(folder)  # and round again
    os.mkfifo(folder / "pipe.png")
    (tmp_path / "empty").mkdir()
    outcome = run(
        folder, tmp_path / "empty", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle
    )
    assert outcome.returncode == 1
    assert "empty: holds no image" in outcome.stderr
    rows = rows_in(tmp_path / "out")
    check_rows(rows, [("pipe.png", None), ("link/a.png", "abc")])
    assert "no regular file" in rows[0]["error"]


def test_going_on_remembers_what_was_not_read(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "good.png").write_bytes(draw_image("abc"))
    images = [tmp_path / "bad.png", tmp_path / "good.png"]
    command = [*images, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle, "--chunk", 1]
    assert run(*command).returncode == 1
    again = run(*command, "--resume")
    assert again.returncode == 1
    assert "2 of 2 images were done by an earlier run, 1 of which could not be read" in again.stderr
    (tmp_path / "out" / "part-00000000.jsonl").unlink()
    (tmp_path / "bad.png").write_bytes(draw_image("abc"))
    assert [run(*command, "--resume").returncode for _ in range(2)] == [0, 0]


def test_another_precision_does_not_go_on(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    command = [tmp_path / "a.png", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle]
    assert run(*command).returncode == 0
    outcome = run(*command, "--resume", "--precision", "full")
    assert outcome.returncode == 2
    assert 'has precision "auto", this one "full"' in outcome.stderr


def test_names_that_are_not_utf_8(toy_bundle: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(path).write_bytes(draw_image("abc"))
    outcome = run(path, "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    assert outcome.returncode == 0, outcome.stderr
    check_rows(rows_in(tmp_path / "out"), [("caf\\udce9.png", "abc")])


def test_parquet_in_and_out(toy_bundle: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip(
        "pyarrow", reason="pyarrow is not installed here: make test-scale brings it"
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [some_text(n) for n in range(150)]
    drawn = [draw_image(text) for text in texts]
    plain = pyarrow.table({"label": texts, "picture": [*drawn[:-1], None]})
    parquet.write_table(plain, tmp_path / "plain.parquet", row_group_size=80)
    structs = [{"bytes": image, "path": "x.png"} for image in drawn[:3]]
    parquet.write_table(pyarrow.table({"picture": structs}), tmp_path / "structs.parquet")
    inputs = [tmp_path / "plain.parquet", tmp_path / "structs.parquet"]
    wrong = run(*inputs, "--out", tmp_path / "wrong", "--model", toy_bundle)
    assert wrong.returncode == 2
    assert "no column 'image'; there is: label, picture (--column)" in wrong.stderr
    out = tmp_path / "out"
    outcome = run(*inputs, "--out", out, "--model", toy_bundle, "--chunk", 70, "--column", "picture")
    assert outcome.returncode == 1, outcome.stderr
    expected = [(f"plain.parquet#{n}", text) for n, text in enumerate(texts[:-1])]
    expected_rows: list[tuple[str, str | None]] = [*expected, ("plain.parquet#149", None)]
    expected_rows += [(f"structs.parquet#{n}", text) for n, text in enumerate(texts[:3])]
    rows = rows_in(out)
    check_rows(rows, expected_rows)
    assert "column 'picture': got NoneType" in rows[149]["error"]
    assert sorted(path.suffix for path in out.glob("part-*")) == [".parquet"] * 4


@PLACES
def test_killed_and_resumed_every_row_is_there_once(
    place: tuple[str, ...], toy_bundle: Path, images: dict[Path, str], tmp_path: Path
) -> None:
    chooser = random.Random(3)
    wanted = [chooser.choice(list(images)) for _ in range(1500)]
    manifest = tmp_path / "many.txt"
    manifest.write_text("".join(f"{path}\n" for path in wanted))
    out = tmp_path / "out"
    command = [manifest, "--out", out, "--format", "jsonl", "--model", toy_bundle, "--chunk", 20, *place]
    if place and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed here: make test-scale brings it")
    done: dict[Path, int] = {}
    for round_number, parts in enumerate((5, 20, 40)):
        process = subprocess.Popen(
            [*CLI[:1], "-m", "longhand_server.bulk", *map(str, command), "--resume"],
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
        )
        wait_for_parts(out, parts, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
        if place:
            time.sleep(3)  # Ray notices by itself, and ends the readers
        # What an earlier round had finished was not done again.
        for path, modified in done.items():
            assert path.stat().st_mtime_ns == modified, f"round {round_number}: {path} was written again"
        done = {path: path.stat().st_mtime_ns for path in out.glob("part-*.jsonl")}
    outcome = run_elsewhere(*command, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert "images were done by an earlier run" in outcome.stderr
    check_rows(rows_in(out), [(path.name, images[path]) for path in wanted])
    assert not list(out.glob("*.tmp"))
    assert all(path.stat().st_mtime_ns == modified for path, modified in done.items())


@pytest.mark.scale
def test_a_reader_that_dies_is_started_again(
    toy_bundle: Path, images: dict[Path, str], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here: make test-scale brings it")
    wanted = [path for path in images for _ in range(40)]
    manifest = tmp_path / "many.txt"
    manifest.write_text("".join(f"{path}\n" for path in wanted))
    out = tmp_path / "out"
    command = [manifest, "--out", out, "--format", "jsonl", "--model", toy_bundle, "--chunk", 10]
    command += ["--address", "local", "--readers", 2]
    with subprocess.Popen(
        [*CLI[:1], "-m", "longhand_server.bulk", *map(str, command)],
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
    ) as process:
        wait_for_parts(out, 3, process)
        readers = [pid for pid in process_tree(process.pid) if "MapWorker" in title(pid)]
        os.kill(readers[0], signal.SIGKILL)
        _, message = process.communicate(timeout=200)
    assert process.returncode == 0, message.decode()
    check_rows(rows_in(out), [(path.name, images[path]) for path in wanted])


@pytest.mark.scale
def test_a_cluster_that_is_there_already(toy_bundle: Path, images: dict[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here: make test-scale brings it")
    head = f"127.0.0.1:{free_port()}"
    environment = _ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    start = ["-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={head.partition(':')[2]}"]
    start += ["--num-cpus=2", f"--object-store-memory={100 << 20}"]
    start += ["--include-dashboard=false", f"--temp-dir={tempfile.mkdtemp(prefix='ray')}"]
    folder, out = next(iter(images)).parents[1], tmp_path / "out"
    command = [folder, "--out", out, "--format", "jsonl", "--model", toy_bundle, "--chunk", 5, "--resume"]
    nobody = run_elsewhere(*command, "--address", head)
    assert nobody.returncode == 2
    assert f"--address: no Ray cluster at '{head}'" in nobody.stderr
    assert (
        "got 'nowhere', need HOST:PORT, auto or local"
        in run_elsewhere(*command, "--address", "nowhere").stderr
    )
    with subprocess.Popen([sys.executable, *start], env=environment) as cluster:
        try:
            end = time.monotonic() + 150
            while (outcome := run_elsewhere(*command, "--address", head, environment=environment)).returncode:
                assert time.monotonic() < end, outcome.stderr
        finally:
            processes = process_tree(cluster.pid)
            cluster.terminate()
            cluster.wait(60)
            for pid in processes[1:]:
                if "ray" in title(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    check_rows(rows_in(out), [(path.name, images[path]) for path in sorted(images)])


def wait_for_parts(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 200
    while len(list(folder.glob("part-*.jsonl"))) < count:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < end, f"not {count} files after 200 s"
        time.sleep(0.01)


def test_memory_does_not_grow_with_the_images(
    toy_bundle: Path, images: dict[Path, str], tmp_path: Path
) -> None:
    measure = (
        "import resource, sys; from longhand_server.bulk import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    peaks = []
    for count in (200, 1600):
        manifest = tmp_path / f"{count}.txt"
        manifest.write_text("".join(f"{list(images)[n % 24]}\n" for n in range(count)))
        arguments = [manifest, "--out", tmp_path / f"out{count}", "--format", "jsonl", "--chunk", 50]
        outcome = subprocess.run(
            [sys.executable, "-c", measure, *map(str, arguments), "--model", str(toy_bundle)],
            capture_output=True,
            text=True,
            check=True,
            timeout=110,
        )
        peaks.append(int(outcome.stdout) / 1024)
    assert peaks[1] - peaks[0] < 10, f"{peaks} MB at most for 200 and 1,600 images"


def test_wrong_arguments_say_what_is_wrong(toy_bundle: Path, images: dict[Path, str], tmp_path: Path) -> None:
    image, out = next(iter(images)), tmp_path / "out"
    basics = ("--out", out, "--format", "jsonl", "--model", toy_bundle)
    assert run(image, *basics).returncode == 0
    (tmp_path / "notes.doc").touch()
    (tmp_path / "broken.tar").write_bytes(b"x" * 600)
    (tmp_path / "empty").mkdir()
    fresh = ("--out", tmp_path / "fresh", "--format", "jsonl")
    for arguments, message in (
        ((image, *basics), "holds a run already; --resume goes on with it"),
        ((image, *basics, "--chunk", 7, "--resume"), "has chunk 500, this one 7"),
        ((tmp_path / "gone", *fresh), "gone: there is no such file or folder"),
        ((tmp_path / "notes.doc", *fresh), "unknown kind '.doc', need a folder or one of .bmp,"),
        ((tmp_path / "broken.tar", *fresh), "broken.tar: no webdataset tar, or a damaged one"),
        ((tmp_path / "empty", *fresh), "no image in"),
        ((image, *fresh, "--model", "none"), "model 'none': neither a folder nor a shipped model"),
        ((image, *fresh, "--beam-width", "2000"), "options.decoder.beam_width: got 2000, need 1 to 1000"),
        ((image, *fresh, "--chunk", "0"), "got '0', need a whole number of at least 1"),
    ):
        outcome = run(*arguments)
        assert outcome.returncode == 2, outcome.stderr
        assert message in outcome.stderr


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        (
            "ray",
            ("--address", "auto", "--format", "jsonl"),
            "--address needs Ray Data: pip install '.[bulk]' in Longhand's folder",
        ),
        ("pyarrow", (), "Parquet needs pyarrow: pip install '.[bulk]' in Longhand's folder"),
    ],
)
def test_a_missing_extra_says_what_to_install(
    toy_bundle: Path,
    images: dict[Path, str],
    tmp_path: Path,
    missing: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    blocked = f"import sys; sys.modules[{missing!r}] = None; from longhand_server.bulk import main; sys.exit(main())"
    command = [sys.executable, "-c", blocked, str(next(iter(images))), "--out", str(tmp_path / "out")]
    outcome = subprocess.run(
        [*command, "--model", str(toy_bundle), *arguments], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 2
    assert message in outcome.stderr


def test_two_runs_do_not_share_a_folder(toy_bundle: Path, images: dict[Path, str], tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out" / "_longhand").mkdir(parents=True)
    with (tmp_path / "out" / "_longhand" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = run(
            next(iter(images)), "--out", tmp_path / "out", "--model", toy_bundle, "--format", "jsonl"
        )
    assert outcome.returncode == 2
    assert "another run writes into" in outcome.stderr
