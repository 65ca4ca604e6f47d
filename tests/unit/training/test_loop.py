"""The training loop: which weights it keeps, when it ends, and what it says and logs meanwhile."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.training_runs import ALPHABET, bars, tiny_trainer
from longhand_training import curves
from longhand_training.checkpoint import Checkpoint
from longhand_training.curves import read_log
from longhand_training.dataset import Batch, collate
from longhand_training.loop import run
from longhand_training.stopping import StopSignals
from longhand_training.trainer import Trainer


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all else here."""
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)


def stepping(
    out: Path,
    losses: Iterable[float] = (),
    rates: Iterable[dict[str, float]] = ({"own": 0.5},),
    **settings: Any,
) -> Trainer:
    """A trainer whose steps learn nothing but have these losses, and that reads as wrongly as told."""
    trainer = tiny_trainer(out, **settings)
    each_loss = itertools.chain(losses, itertools.repeat(1.0))
    each_rate, last = iter(rates), [{"own": 0.5}]

    def train_batch(batch: Batch) -> float:
        loss = next(each_loss)
        if math.isfinite(loss):
            trainer.step += 1
            trainer.lines += len(batch.widths)
        return loss

    def validate(sets: object) -> dict[str, float]:
        last[0] = next(each_rate, last[0])
        return last[0]

    trainer.train_batch = train_batch  # type: ignore[method-assign]
    trainer.validate = validate  # type: ignore[method-assign]
    return trainer


def go(trainer: Trainer, limit_s: float = math.inf) -> bool:
    return run(trainer, itertools.repeat(collate(bars(), ALPHABET)), {}, limit_s, StopSignals())


def test_the_best_weights_are_those_of_the_least_mean_over_all_sets(tmp_path: Path) -> None:
    rates = [{"a": 0.0, "b": 0.3}, {"a": 0.2, "b": 0.2}, {"a": 0.1, "b": 0.19}]
    trainer = stepping(tmp_path, rates=rates, lines=6, validate_every=1e-9)
    seen: list[tuple[float, int]] = []
    batch = collate(bars(), ALPHABET)

    def batches() -> Iterable[Batch]:
        for _ in rates:
            yield batch
            seen.append((trainer.best, trainer.stale))

    assert run(trainer, iter(batches()), {}, math.inf, StopSignals())
    assert seen == [(0.15, 0), (0.15, 1)]
    assert trainer.best == pytest.approx(0.145)
    assert trainer.stale == 0


def test_a_run_ends_after_so_many_validations_that_were_no_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = stepping(tmp_path, lines=1000, patience=3, validate_every=1e-9)
    assert go(trainer)
    assert trainer.step < 10
    assert trainer.best == 0.5
    assert "no better for 3 validations: stopped\n" in capsys.readouterr().out


def test_a_piece_ends_at_its_limit_and_is_not_the_end(tmp_path: Path) -> None:
    trainer = stepping(tmp_path, lines=1000)
    assert not go(trainer, limit_s=0.0)
    assert trainer.step == 1


@pytest.mark.parametrize(("validated", "rows"), [(7, 0), (3, 1)])
def test_a_finished_run_is_validated_where_a_signal_had_kept_it_from_that(
    validated: int, rows: int, tmp_path: Path
) -> None:
    trainer = stepping(tmp_path, lines=14)
    trainer.lines, trainer.step, trainer.validated_step = 14, 7, validated
    assert go(trainer)
    assert trainer.step == 7
    log = tmp_path / "log.csv"
    assert len(read_log(log) if log.exists() else []) == rows


def test_only_steps_in_a_row_that_are_not_finite_end_a_run(tmp_path: Path) -> None:
    odd = [math.nan] * 19
    trainer = stepping(tmp_path, [*odd, 1.0, *odd, 1.0, *odd, math.nan], lines=1000)
    with pytest.raises(ArithmeticError, match="20 steps in a row not finite; try a lower --learning-rate"):
        go(trainer)
    assert trainer.step == 2


def test_the_log_has_the_mean_loss_of_late_and_the_time_and_rate_of_the_step(tmp_path: Path) -> None:
    trainer = stepping(tmp_path, range(1, 401), lines=800)
    trainer.seconds = 180.0
    assert go(trainer)
    (row,) = read_log(tmp_path / "log.csv")
    assert float(row["loss"]) == sum(range(101, 401)) / 300
    assert float(row["minutes"]) == pytest.approx(3.0, abs=0.5)
    assert float(row["learning_rate"]) == pytest.approx(0.01 * trainer.config.learning_rate)
    assert (row["step"], row["lines"], row["cer_own"]) == ("400", "800", "0.5")
    assert Checkpoint.load(tmp_path / "best.pt").settings["lines"] == 800


def test_what_is_shown_of_a_run_that_goes_on_is_this_pieces_speed_and_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    trainer = stepping(tmp_path, [2.0, 4.0, 9.0], lines=2000)
    trainer.lines, trainer.seconds, trainer.step = 994, 5000.0, 497
    assert not go(trainer, limit_s=12.0)
    # A step of two lines takes two looks at the clock, of which one is behind the wait for lines.
    assert capsys.readouterr().out == (
        " 50.0 %  step 500  1000 lines  loss 5.000  1.0 lines/s  17 min left  (50 % waiting for lines)\n"
    )
