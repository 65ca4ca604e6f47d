"""What a piece of a run begins with: its lines, its validation sets and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.training_runs import ALPHABET, Train, bars, own_lines, small_run
from longhand_server.config import LineFormat
from longhand_training import piece
from longhand_training.checkpoint import Checkpoint
from longhand_training.dataset import LineDataset, Sample
from longhand_training.replicas import Replicas
from longhand_training.source_config import SourceConfig
from longhand_training.train import _parser
from longhand_training.trainer import Trainer


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts OpenCV's threads back, without which a run goes."""
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def prepared(
    monkeypatch: pytest.MonkeyPatch, rank: int, *arguments: object
) -> tuple[Trainer, LineDataset, dict[str, list[Sample]]]:
    monkeypatch.setattr(piece, "_batches", lambda dataset, *_: dataset)
    options = _parser().parse_args(small_run(arguments))
    trainer, lines, sets = piece._prepared(options, Replicas(rank))
    assert isinstance(lines, LineDataset)
    return trainer, lines, sets


def test_every_piece_and_process_draws_lines_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    arguments = ["--folder", own_lines(tmp_path / "lines", "hello"), "--seed", 5, "--repeats", 3]
    for out, rank in (("run", 0), ("run", 1), ("other", 0)):
        trainer, lines, _ = prepared(monkeypatch, rank, *arguments, "--out", tmp_path / out)
        assert (lines.seed, lines.replica, lines.repeats) == (5, rank, 3)
        assert lines.round == (0 if out == "other" or rank == 0 else 1)
        assert lines.pixels_per_batch == 2000
        if out == "run" and rank == 0:  # the other one goes on from it
            (tmp_path / out).mkdir()
            trainer.checkpoint().save(tmp_path / out / "last.pt")


def test_the_first_process_alone_validates_on_as_many_lines_as_told_of_every_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    arguments = ["--folder", own_lines(tmp_path / "lines", "hello"), "--out", tmp_path / "run"]
    arguments += ["--validate", own_lines(tmp_path / "other", "one", "two", "three"), "--validation-lines", 2]
    for rank, wanted in ((0, {"other": 2}), (1, {})):
        trainer, _, sets = prepared(monkeypatch, rank, *arguments)
        assert {name: len(samples) for name, samples in sets.items()} == wanted
        assert trainer.set_sizes == wanted


def test_lines_of_the_packs_are_validated_on_beside_own_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = {"pen": bars(), "ink": []}
    monkeypatch.setattr(piece, "validation_sets", lambda data, line, count: packed)
    config = SourceConfig(data=tmp_path, validate=(own_lines(tmp_path / "other", "ab"),))
    sets = piece._validation(config, ALPHABET, LineFormat(), 2)
    assert {name: len(samples) for name, samples in sets.items()} == {"pen": 2, "other": 1}


def test_a_piece_has_the_limit_that_was_named_and_is_not_the_end(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def run(trainer: Trainer, _: object, __: object, limit_s: float, ___: object) -> bool:
        limits.append(limit_s)
        trainer.step += 1
        return False

    monkeypatch.setattr(piece, "run", run)
    (tmp_path / "meeting_point").write_text("of a run that was killed")  # which would mislead the processes
    arguments = ["--folder", own_lines(tmp_path / "lines", "hello"), "--out", tmp_path, "--limit-minutes", 7]
    done = train(*arguments, "--weight-decay", 0.25)
    assert done.stdout.endswith("piece done; the same command goes on\n")
    assert limits == [420.0]
    assert not (tmp_path / "meeting_point").exists()
    assert train(*arguments).returncode == 0
    assert Checkpoint.load(tmp_path / "last.pt").settings["weight_decay"] == 0.25
