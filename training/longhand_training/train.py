"""Trains the recogniser: ``python -m longhand_training.train --data ../shared/data --out runs/first``.

Stop it when you like (Ctrl-C saves), and go on with the same command. ``--init`` fine-tunes from a
checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidModelError
from longhand_training.checkpoint import Checkpoint
from longhand_training.config import TrainingConfig, add_source_options, sized_like, source_options
from longhand_training.curves import draw_curves
from longhand_training.dataset import (
    DEFAULT_CHARACTERS,
    Batch,
    LineDataset,
    Sample,
    SourceConfig,
    evenly_spread,
    held_out_samples,
    iam_samples,
    make_sources,
    validation_sets,
)
from longhand_training.replicas import Replicas, others_started
from longhand_training.trainer import Trainer

# glibc gives memory back after every step and takes page faults to get it again; keeping it saves 15 % of
# a CPU step (measured; see EXPERIMENTS.md). Read by the C library at start only, hence the re-execution.
_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
_MOST_SKIPPED = 20


def run(trainer: Trainer, batches: Iterator[Batch], sets: dict[str, list[Sample]], limit_s: float) -> bool:
    """Trains until the schedule ends, patience is out, or ``limit_s`` seconds passed; True when finished."""
    config, started = trainer.config, time.monotonic()
    next_save = trainer.seconds + 60 * config.checkpoint_every
    next_validation = trainer.seconds + 60 * config.validate_every
    losses: list[float] = []
    skipped = 0
    shown = started
    piece_lines, piece_seconds, waited = trainer.lines, trainer.seconds, 0.0
    log = _Log(trainer.out) if trainer.replicas.rank == 0 else None
    stop = enough = False
    while trainer.progress < 1.0 and not stop:
        begin = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - begin
        loss = trainer.train_batch(batch)
        trainer.seconds += time.monotonic() - begin
        # From here on every process has the same clock, so that all end at the same step.
        stop = trainer.agree(enough or time.monotonic() - started >= limit_s)
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
            _validate(trainer, sets, log, sum(losses[-300:]) / len(losses[-300:]))
            if config.patience and trainer.stale >= config.patience:
                print(f"no better for {trainer.stale} validations: stopped")
                enough = True
    if log is not None:
        trainer.checkpoint().save(trainer.out / "last.pt")
    return enough or trainer.progress >= 1.0


def _show(trainer: Trainer, loss: float, rate: float, waited: float) -> None:
    left = 60 * trainer.config.minutes - trainer.seconds
    if trainer.config.lines:
        left = (trainer.config.lines - trainer.lines) / max(rate, 1e-9)
    print(
        f"{100 * trainer.progress:5.1f} %  step {trainer.step}  {trainer.lines} lines  loss {loss:.3f}"
        f"  {rate:.1f} lines/s  {left / 60:.0f} min left"
        + (f"  ({100 * waited:.0f} % waiting for lines)" if waited > 0.02 else ""),
        flush=True,
    )


def _validate(trainer: Trainer, sets: dict[str, list[Sample]], log: _Log, loss: float) -> None:
    rates = trainer.validate(sets)
    mean = sum(rates.values()) / max(len(rates), 1)
    print("validation: " + "  ".join(f"{k} {100 * v:.2f} %" for k, v in rates.items()), flush=True)
    log.add(trainer, loss, rates)
    if not rates or mean < trainer.best:
        trainer.best, trainer.stale = mean, 0
        best = trainer.checkpoint()
        best.training = {}
        best.save(trainer.out / "best.pt")
    else:
        trainer.stale += 1


class _Log:
    """``log.csv``, ``curves.png`` and, where it is installed, TensorBoard events."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(out / "tensorboard"))
        except ImportError:
            print("no TensorBoard logs: pip install tensorboard", file=sys.stderr)

    def add(self, trainer: Trainer, loss: float, rates: dict[str, float]) -> None:
        row = {
            "minutes": round(trainer.seconds / 60, 2),
            "step": trainer.step,
            "lines": trainer.lines,
            "learning_rate": trainer.learning_rate(),
            "loss": loss,
            **{f"cer_{name}": rate for name, rate in rates.items()},
        }
        path = self._out / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        draw_curves(path, self._out / "curves.png")
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, trainer.step)
            self._writer.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: checkpoints, logs, curves"
    )
    parser.add_argument("--init", type=Path, help="checkpoint (.pt) or model folder to fine-tune from")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:i]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the network; 0: all cores")
    parser.add_argument("--workers", type=int, default=1, help="processes that make lines")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="train in this many processes that share their gradients; on a CPU as many as cores, --threads 1",
    )
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--limit-minutes", type=float, default=math.inf, help="end this piece of the run then"
    )
    add_source_options(parser)
    TrainingConfig.add_options(parser)
    return parser


def main() -> int:
    """Command line."""
    options = _parser().parse_args()
    if "MALLOC_MMAP_MAX_" not in os.environ and sys.platform == "linux":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "longhand_training.train", *sys.argv[1:]],
            {**os.environ, **_MALLOC},
        )
    others = options.processes if options.rank == 0 else 1
    meeting_point = options.out / "meeting_point"
    try:
        if others > 1:
            options.out.mkdir(parents=True, exist_ok=True)
            meeting_point.unlink(missing_ok=True)
        with others_started(others, "longhand_training.train", sys.argv[1:], os.environ):
            return _train(options, Replicas(options.rank, options.processes, meeting_point))
    except (ValueError, ArithmeticError, InvalidModelError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2


def _train(options: argparse.Namespace, replicas: Replicas) -> int:
    config = TrainingConfig.from_options(options)
    # OpenCV's threads do not survive the fork of the loader's workers, and would only get in their way.
    cv2.setNumThreads(0)
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if replicas.count > 1 and device.type != "cpu":
        raise ValueError(f"--processes: got {replicas.count}; more than one is for --device cpu, not {name}")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    alphabet = Alphabet(DEFAULT_CHARACTERS)
    saved = None
    if options.init is not None:
        saved = (Checkpoint.from_bundle if options.init.is_dir() else Checkpoint.load)(options.init)
        alphabet = Alphabet(saved.characters)
        config = sized_like(config, saved.network)
    trainer = Trainer(config, alphabet, device, options.out, replicas)
    trainer.sources = source_options(options)
    last = options.out / "last.pt"
    if last.exists():
        trainer.resume(Checkpoint.load(last))
        print(f"going on at {100 * trainer.progress:.1f} %, step {trainer.step}")
    elif saved is not None:
        trainer.initialise(saved)
    source_config = SourceConfig(
        data=options.data,
        fonts=options.fonts,
        folders=tuple(options.folder),
        iam=options.iam,
        iam_ids=options.iam_ids,
        hold_out=options.hold_out,
        pen=options.pen_share,
        font=options.font_share,
        copiste=options.copiste_share,
        historical=options.historical_share,
        folder=options.folder_share,
        recompose=not options.no_recompose,
        cuts=options.word_cuts,
    )
    line = LineFormat()
    dataset = LineDataset(
        make_sources(source_config),
        alphabet,
        line,
        config.batch_pixels,
        config.seed,
        trainer.rounds,
        replicas.rank,
        config.repeats,
    )
    dataset.sample(np.random.default_rng(config.seed))  # raises here, in one line, if no line can be used
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=16 if options.workers else None,
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)  # lines are made from now on, while validation lines are read
    sets = _validation(source_config, line, config.validation_lines) if replicas.rank == 0 else {}
    parameters = sum(p.numel() for p in trainer.network.parameters())
    print(f"{parameters / 1e6:.2f} M parameters on {device}, {torch.get_num_threads()} threads", flush=True)
    try:
        finished = run(trainer, batches, sets, 60 * options.limit_minutes)
    except KeyboardInterrupt:
        if replicas.rank == 0:
            trainer.checkpoint().save(last)
        print("stopped; the same command goes on")
        return 130
    print("finished" if finished else "piece done; the same command goes on")
    return 0


def _validation(sources: SourceConfig, line: LineFormat, count: int) -> dict[str, list[Sample]]:
    """Lines that no source trains on: of the packs, of each folder, and of IAM's validation part."""
    sets: dict[str, list[Sample]] = {}
    if sources.data is not None:
        sets.update(validation_sets(sources.data, line, count))
    for folder in sources.folders:
        if samples := held_out_samples(folder, line, sources.hold_out):
            sets[folder.name] = evenly_spread(samples, count)
    if sources.iam is not None and sources.iam_ids == "aachen_train":
        sets["iam"] = evenly_spread(iam_samples(sources.iam, line, "aachen_validation"), count)
    return sets


if __name__ == "__main__":
    sys.exit(main())
