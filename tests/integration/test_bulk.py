"""`longhand batch`: one row for every image, on one machine and on Ray, killed and resumed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.bulk_runs import CLI, ENVIRONMENT, check_rows, rows_in, run, run_elsewhere, some_text
from helpers.process_tree import process_tree, title
from helpers.toy_model import draw_image
from helpers.web_process import free_port
from longhand_server import bulk
from longhand_server.options import RecognitionOptions

ON_RAY = pytest.param(("--address", "local", "--readers", "2"), marks=pytest.mark.scale, id="ray")
PLACES = pytest.mark.parametrize("place", [pytest.param((), id="process"), ON_RAY])


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


@PLACES
def test_a_folder(place: tuple[str, ...], toy_bundle: Path, images: dict[Path, str], tmp_path: Path) -> None:
    folder = next(iter(images)).parents[1]
    out = tmp_path / "out"
    outcome = run_elsewhere(
        folder, "--out", out, "--format", "jsonl", "--model", toy_bundle, "--chunk", 5, *place
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "read 24 images in" in outcome.stderr
    assert "by an earlier run" not in outcome.stderr
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
            env=ENVIRONMENT,
        )
        wait_for_parts(out, parts, process)
        by_hand = round_number == 1 and not place  # Ctrl-C
        process.send_signal(signal.SIGINT if by_hand else signal.SIGKILL)
        _, message = process.communicate(timeout=60)
        assert process.returncode == (130 if by_hand else -signal.SIGKILL), "it was done before that"
        if by_hand:
            assert message.decode().splitlines()[-1] == "longhand batch: stopped; --resume goes on"
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
        env=ENVIRONMENT,
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
    environment = ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
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
        ((tmp_path / "gone", *fresh), "gone: there is no such file or folder"),
        ((tmp_path / "notes.doc", *fresh), "unknown kind '.doc', need a folder or one of .bmp,"),
        ((tmp_path / "broken.tar", *fresh), "broken.tar: no webdataset tar, or a damaged one"),
        ((tmp_path / "empty", *fresh), "no image in"),
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
    assert missing == "ray" or not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "none"), "model 'none': neither a folder nor a shipped model"),
        (("--device", "tpu"), "device: got 'tpu', need auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_model_or_device_is_told_before_anything_is_written(
    toy_bundle: Path, images: dict[Path, str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    command = (next(iter(images)), "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    outcome = run(*command, *arguments)
    assert outcome.returncode == 2
    assert message in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("--decoder", "greedy"), RecognitionOptions(greedy=True)),
        (("--beam-width", "7"), RecognitionOptions(beam_width=7)),
    ],
)
def test_how_to_read_reaches_the_reader(
    toy_bundle: Path,
    images: dict[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    options: RecognitionOptions,
) -> None:
    seen: list[object] = []

    def read(*given: object) -> Iterator[tuple[int, int]]:
        seen.append(given[-1])
        yield from ()

    monkeypatch.setattr(bulk, "_read_here", read)
    command = (next(iter(images)), "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle)
    run(*command, *arguments)
    assert seen == [options]


def test_two_runs_do_not_share_a_folder(toy_bundle: Path, images: dict[Path, str], tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out" / "_longhand").mkdir(parents=True)
    with (tmp_path / "out" / "_longhand" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # even this is too much
        outcome = run(
            next(iter(images)), "--out", tmp_path / "out", "--model", toy_bundle, "--format", "jsonl"
        )
    assert outcome.returncode == 2
    assert "another run writes into" in outcome.stderr
