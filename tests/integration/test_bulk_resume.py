"""`longhand batch`: what an earlier run has left, and when --resume goes on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.bulk_runs import check_rows, rows_in, run
from helpers.toy_model import draw_image, write_bundle
from longhand_server import bulk, bulk_reader
from longhand_server.bulk_plan import write_whole
from longhand_server.config import ImageLimits


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


def test_errors_are_noted_before_their_rows_appear(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    out, noted = tmp_path / "out", []

    def write(path: Path, content: bytes) -> None:
        noted.append((out / "_longhand" / "errors-00000000").read_text())
        write_whole(path, content)

    monkeypatch.setattr(bulk_reader, "write_whole", write)
    run(tmp_path / "bad.png", "--out", out, "--format", "jsonl", "--model", toy_bundle)
    assert noted == ["1"]


def test_a_run_that_is_done_loads_no_model(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    command = [tmp_path / "a.png", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle]
    assert run(*command).returncode == 0
    monkeypatch.delattr(bulk, "_read_here")
    assert run(*command, "--resume").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["--precision", "full"], 'precision "auto", this one "full"'),
        (["--second-look", "false"], 'second_look "true", this one "false"'),
        (["--decoder", "greedy"], 'decoder "beam", this one "greedy"'),
        (["--beam-width", "7"], "beam_width null, this one 7"),
        (["--max-image-bytes", "99999"], f"max_image_bytes {ImageLimits().max_bytes}, this one 99999"),
        (["--column", "scan"], 'column "image", this one "scan"'),
        (["--chunk", "7"], "chunk 500, this one 7"),
        (["another.png"], "inputs ["),
    ],
)
def test_other_settings_do_not_go_on(
    toy_bundle: Path, tmp_path: Path, arguments: list[str], change: str
) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    command = [tmp_path / "a.png", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle]
    assert run(*command).returncode == 0
    outcome = run(*arguments, *command, "--resume")
    assert outcome.returncode == 2
    assert f"--resume: the run in {tmp_path / 'out'} has {change}" in outcome.stderr


def test_another_version_of_the_model_does_not_go_on(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", version="1")
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    command = [tmp_path / "a.png", "--out", tmp_path / "out", "--format", "jsonl", "--model", bundle]
    assert run(*command).returncode == 0
    write_bundle(bundle, version="2")
    outcome = run(*command, "--resume")
    assert outcome.returncode == 2
    assert 'has bundle "toy 1", this one "toy 2"' in outcome.stderr


def test_a_plan_of_an_older_version_goes_on(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    command = [tmp_path / "a.png", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle]
    assert run(*command).returncode == 0
    plan = tmp_path / "out" / "_longhand" / "plan.json"
    head = json.loads(plan.read_text())
    del head["settings"]["second_look"]
    plan.write_text(json.dumps(head))
    assert run(*command, "--resume").returncode == 0


@pytest.mark.parametrize(("name", "kept"), [("plan.json", 20), ("chunks.jsonl", 20), ("chunks.jsonl", 0)])
def test_a_damaged_plan_is_refused(toy_bundle: Path, tmp_path: Path, name: str, kept: int) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    command = [tmp_path / "a.png", "--out", tmp_path / "out", "--format", "jsonl", "--model", toy_bundle]
    assert run(*command).returncode == 0
    path = tmp_path / "out" / "_longhand" / name
    path.write_bytes(path.read_bytes()[:kept])
    outcome = run(*command, "--resume")
    assert outcome.returncode == 2
    assert f"{path}: damaged (" in outcome.stderr


def test_what_a_killed_run_left_unfinished_is_cleared_away(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    out = tmp_path / "new" / "out"
    command = [tmp_path / "a.png", "--out", out, "--format", "jsonl", "--model", toy_bundle]
    assert run(*command).returncode == 0
    (out / "part-00000000.jsonl").rename(out / "part-00000000.jsonl.4711.tmp")
    assert run(*command, "--resume").returncode == 0
    check_rows(rows_in(out), [("a.png", "abc")])
    assert [path.name for path in out.glob("part-*")] == ["part-00000000.jsonl"]


def test_rows_without_their_plan_are_left_alone(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("abc"))
    rows = tmp_path / "out" / "part-00000000.jsonl"
    rows.parent.mkdir()
    rows.write_text("precious")
    command = [tmp_path / "a.png", "--out", rows.parent, "--format", "jsonl", "--model", toy_bundle]
    for options in ([], ["--resume"]):
        outcome = run(*command, *options)
        assert outcome.returncode == 2
        assert "holds rows but no plan; take another folder" in outcome.stderr
    assert rows.read_text() == "precious"
