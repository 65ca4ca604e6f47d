"""The training loop: steps, and between them checkpoints, validations and what is printed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from longhand_training.curves import RunLog
from longhand_training.dataset import Batch, Sample
from longhand_training.replicas import ProcessLostError
from longhand_training.stopping import StopSignals
from longhand_training.trainer import Trainer

_MOST_SKIPPED = 20


def run(
    trainer: Trainer,
    batches: Iterator[Batch],
    sets: dict[str, list[Sample]],
    limit_s: float,
    signals: StopSignals,
) -> bool:
    """Trains until the schedule ends, patience is out, ``limit_s`` seconds passed or a signal came.

    Returns:
        Whether the run is finished.

    Raises:
        ArithmeticError: too many steps in a row were not finite.
        ProcessLostError: a process that makes lines, or that trains along, has ended.
        Stopped: a signal came between two steps.
    """
    config, started = trainer.config, time.monotonic()
    next_save = trainer.seconds + 60 * config.checkpoint_every
    next_validation = trainer.seconds + 60 * config.validate_every
    losses: list[float] = []
    skipped = 0
    shown = started
    piece_lines, piece_seconds, waited = trainer.lines, trainer.seconds, 0.0
    log = RunLog(trainer.out, trainer.step) if trainer.replicas.rank == 0 else None
    if log is not None and trainer.initialised:
        _validate(trainer, sets, log, signals, None)
    # The first process knows: it has seen whether the validation sets are those of before.
    stop = enough = trainer.agree(log is not None and _is_enough(trainer))
    while trainer.progress < 1.0 and not stop:
        begin = time.monotonic()
        with signals.interruptible():
            batch = _next(batches)
        waited += time.monotonic() - begin
        loss = trainer.train_batch(batch)
        trainer.seconds += time.monotonic() - begin
        # From here on every process has the same clock, so that all end at the same step.
        wanted = enough or signals.received is not None or time.monotonic() - started >= limit_s
        stop = trainer.agree(wanted)
        if math.isfinite(loss):
            losses.append(loss)
            skipped = 0
        else:
            skipped += 1
            print(f"step {trainer.step} left out: loss or gradient not finite", flush=True)
            if skipped == _MOST_SKIPPED:
                raise ArithmeticError(f"{skipped} steps in a row not finite; try a lower --learning-rate")
            continue
        if log is None:
            continue
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            spent = max(trainer.seconds - piece_seconds, 1e-9)
            rate = (trainer.lines - piece_lines) / spent
            _show(trainer, sum(losses[-100:]) / len(losses[-100:]), rate, waited / spent)
        if trainer.seconds >= next_save:
            next_save = trainer.seconds + 60 * config.checkpoint_every
            trainer.checkpoint().save(trainer.out / "last.pt")
        if trainer.seconds >= next_validation or trainer.progress >= 1.0:
            next_validation = trainer.seconds + 60 * config.validate_every
            _validate(trainer, sets, log, signals, sum(losses[-300:]) / len(losses[-300:]))
            enough = _is_enough(trainer)
    if log is not None and trainer.progress >= 1.0 and trainer.validated_step != trainer.step:
        _validate(trainer, sets, log, signals, math.nan)  # a signal had kept it from that
    return enough or trainer.progress >= 1.0


def _next(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        # The system kills it where memory is short, a container's /dev/shm (64 MB with Docker) above all.
        raise ProcessLostError(
            "a process that makes lines was killed (is memory or /dev/shm full?)"
        ) from error


def _is_enough(trainer: Trainer) -> bool:
    """Whether patience is out, which is printed."""
    if not trainer.config.patience or trainer.stale < trainer.config.patience:
        return False
    print(f"no better for {trainer.stale} validations: stopped")
    return True


def _show(trainer: Trainer, loss: float, rate: float, waited: float) -> None:
    left = 60 * trainer.config.minutes - trainer.seconds
    if trainer.config.lines:
        left = (trainer.config.lines - trainer.lines) / max(rate, 1e-9)
    print(
        f"{100 * trainer.progress:5.1f} %  step {trainer.step}  {trainer.lines} lines  loss {loss:.3f}"
        f"  {rate:.1f} lines/s  {max(left, 0.0) / 60:.0f} min left"
        + (f"  ({100 * waited:.0f} % waiting for lines)" if waited > 0.02 else ""),
        flush=True,
    )


def _validate(
    trainer: Trainer, sets: dict[str, list[Sample]], log: RunLog, signals: StopSignals, loss: float | None
) -> None:
    """Reads the validation lines, and keeps the weights as best.pt if they are; no loss before the first step."""
    with signals.interruptible():
        rates = trainer.validate(sets)
    mean = sum(rates.values()) / max(len(rates), 1)
    shown = "  ".join(f"{name} {100 * rate:.2f} %" for name, rate in rates.items())
    if shown:
        print(f"{'before' if loss is None else 'validation'}: {shown}", flush=True)
    trainer.validated_step = trainer.step
    if loss is None and rates:
        trainer.before = mean
    better = not rates or mean < trainer.best
    trainer.stale = 0 if better else trainer.stale + 1
    # Where lines are few, an equal rate says nothing against what has learned more, and a low one before the first
    # step nothing for what has learned nothing.
    few = trainer.validates_on_few
    if better or (few and mean == trainer.best):
        is_to_be_beaten = rates and not (few and loss is None)
        trainer.best, trainer.best_step = mean if is_to_be_beaten else math.inf, trainer.step
        best = trainer.checkpoint()
        best.training = {}
        best.save(trainer.out / "best.pt")
    # At once: a run that is killed before the next checkpoint must not go on with an older best, and take worse
    # weights for better ones.
    trainer.checkpoint().save(trainer.out / "last.pt")
    log.add(
        {
            "minutes": round(trainer.seconds / 60, 2),
            "step": trainer.step,
            "lines": trainer.lines,
            "learning_rate": trainer.learning_rate(),
            "loss": loss,
            **{f"cer_{name}": rate for name, rate in rates.items()},
        }
    )
