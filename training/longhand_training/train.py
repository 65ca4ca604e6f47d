"""Trains the recogniser: ``python -m longhand_training.train --data ../shared/data --out runs/first``.

Stop it when you like (Ctrl-C saves), and go on with the same command. ``--init`` fine-tunes from a
checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat, NetworkConfig
from longhand_server.errors import InvalidModelError
from longhand_server.network import LineNetwork
from longhand_training.checkpoint import Checkpoint, averaged
from longhand_training.config import TrainingConfig, add_source_options
from longhand_training.curves import draw_curves
from longhand_training.dataset import (
    DEFAULT_CHARACTERS,
    Batch,
    LineDataset,
    Sample,
    SourceConfig,
    make_sources,
    validation_sets,
)
from longhand_training.greedy import greedy_texts
from longhand_training.metrics import character_error_rate
from longhand_training.replicas import Replicas, others_started

# glibc gives memory back after every step and takes page faults to get it again; keeping it saves 15 % of
# a CPU step (measured; see EXPERIMENTS.md). Read by the C library at start only, hence the re-execution.
_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
_MOST_SKIPPED = 20


class Trainer:
    """Network, averaged weights, optimiser and the loop."""

    def __init__(
        self,
        config: TrainingConfig,
        alphabet: Alphabet,
        device: torch.device,
        out: Path,
        replicas: Replicas | None = None,
    ) -> None:
        self.config, self.alphabet, self.device, self.out = config, alphabet, device, out
        self.replicas = replicas or Replicas()
        torch.manual_seed(config.seed)
        size = NetworkConfig(
            labels=len(alphabet),
            channels=cast(Any, config.channels),
            blocks=cast(Any, config.blocks),
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
        )
        network = LineNetwork(size).to(device)
        self.memory_format = _memory_format(config.channels)
        self.network = network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.ctc = nn.CTCLoss(zero_infinity=True)
        self.bfloat16 = _has_fast_bfloat16(device)
        # The same weights in every process, but not the same dropout.
        torch.manual_seed(config.seed + self.replicas.rank)
        self.seconds, self.step, self.lines, self.rounds = 0.0, 0, 0, 0
        self.best = math.inf
        self.stale = 0

    @property
    def progress(self) -> float:
        """Part of the run that is done, 0 to 1."""
        if self.config.lines:
            return min(self.lines / self.config.lines, 1.0)
        return min(self.seconds / (60.0 * self.config.minutes), 1.0)

    def learning_rate(self) -> float:
        """Linear warm-up, then a half cosine to 1 % of the peak."""
        done, warm = self.progress, self.config.warm_up
        if done < warm:
            return self.config.learning_rate * (0.05 + 0.95 * done / warm)
        share = (done - warm) / (1.0 - warm)
        return self.config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * share)))

    def train_batch(self, batch: Batch) -> float:
        """One optimiser step; gives the mean CTC loss per label, or NaN when the step was left out.

        A step whose loss or gradient is not finite changes nothing: half-precision arithmetic overflows now
        and then (and bfloat16 matrix tiles under some hypervisors give a rare NaN of their own).
        """
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        images = batch.images.to(self.device, non_blocking=True).float().mul_(1.0 / 255.0)
        images = images.contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            main, shortcut = self.network.training_logits(images)
        frames = torch.div(batch.widths + 3, 4, rounding_mode="floor")
        loss = self._ctc(main, batch, frames)
        total = loss
        if self.config.shortcut_weight:
            total = loss + self.config.shortcut_weight * self._ctc(shortcut, batch, frames)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        mean_loss = self.replicas.average_gradients(self.network.parameters(), float(loss.detach()))
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        if not math.isfinite(mean_loss + float(norm)):
            for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            return math.nan
        self.optimiser.step()
        self.step += 1
        self.lines += len(batch.widths) * self.replicas.count
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        averaged(self.average, self.network.state_dict(), decay)
        return mean_loss

    def agree(self, stop: bool) -> bool:
        """Makes the clocks of all processes one; whether any of them wants to stop."""
        self.seconds, lines, stops = self.replicas.mean([self.seconds, self.lines, stop])
        self.lines = round(lines)
        return stops > 0

    def _ctc(self, logits: Tensor, batch: Batch, frames: Tensor) -> Tensor:
        log_probs = logits.float().log_softmax(-1).transpose(0, 1)
        return cast(Tensor, self.ctc(log_probs, batch.targets.to(self.device), frames, batch.target_lengths))

    def validate(self, sets: dict[str, list[Sample]]) -> dict[str, float]:
        """Greedy CER of each set, with the averaged weights."""
        network = LineNetwork(self.network.config)
        network.load_state_dict(self.average)
        network.eval().to(self.device)
        rates = {}
        for name, samples in sets.items():
            texts = greedy_texts(network, [s.pixels for s in samples], self.alphabet, self.device)
            rates[name] = character_error_rate([s.text for s in samples], texts)
        return rates

    def checkpoint(self) -> Checkpoint:
        """The state as it is now."""
        training = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **{name: getattr(self, name) for name in ("seconds", "step", "lines", "rounds", "best", "stale")},
        }
        characters = "".join(self.alphabet.characters)
        settings = dataclasses.asdict(self.config)
        return Checkpoint(self.network.config, characters, self.average, training, settings)

    def resume(self, saved: Checkpoint) -> None:
        """Goes on where a checkpoint left off.

        Raises:
            ValueError: another network or alphabet than this run's.
        """
        self._take_weights(saved, saved.training["network"])
        self.optimiser.load_state_dict(saved.training["optimiser"])
        for name in ("seconds", "step", "lines", "rounds", "best", "stale"):
            setattr(self, name, saved.training[name])
        self.rounds += 1

    def initialise(self, saved: Checkpoint) -> None:
        """Starts a new run from another run's averaged weights (fine-tuning)."""
        self._take_weights(saved, saved.weights)

    def _take_weights(self, saved: Checkpoint, weights: dict[str, Tensor]) -> None:
        mine = "".join(self.alphabet.characters)
        if dataclasses.replace(saved.network, dropout=self.config.dropout) != self.network.config:
            raise ValueError(f"checkpoint has the network {saved.network}, this run {self.network.config}")
        if saved.characters != mine:
            raise ValueError(f"checkpoint has the alphabet {saved.characters!r}, this run {mine!r}")
        self.network.load_state_dict(weights)
        self.average = {k: v.to(self.device).clone() for k, v in saved.weights.items()}


def _has_fast_bfloat16(device: torch.device) -> bool:
    """bfloat16 pays on a GPU and on a CPU that multiplies in it (AMX, AVX512-BF16); elsewhere it loses."""
    if device.type == "cuda":
        return True
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _memory_format(channels: Sequence[int]) -> torch.memory_format:
    """Channels last is faster, but only for whole blocks of 16 channels.

    With others oneDNN 3.12 (PyTorch 2.13) writes outside its buffers in the backward pass of a strided 1x1
    convolution on a CPU: the heap is damaged and the process dies, or worse, does not.
    """
    whole = all(count % 16 == 0 for count in channels)
    return torch.channels_last if whole else torch.contiguous_format


def run(trainer: Trainer, batches: Iterator[Batch], sets: dict[str, list[Sample]], limit_s: float) -> bool:
    """Trains until the schedule ends, patience is out, or ``limit_s`` seconds passed; True when finished."""
    config, started = trainer.config, time.monotonic()
    next_save = trainer.seconds + 60 * config.checkpoint_every
    next_validation = trainer.seconds + 60 * config.validate_every
    losses: list[float] = []
    skipped = 0
    shown = started
    piece_lines, piece_seconds = trainer.lines, trainer.seconds
    log = _Log(trainer.out) if trainer.replicas.rank == 0 else None
    stop = enough = False
    while trainer.progress < 1.0 and not stop:
        begin = time.monotonic()
        loss = trainer.train_batch(next(batches))
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
            rate = (trainer.lines - piece_lines) / max(trainer.seconds - piece_seconds, 1e-9)
            _show(trainer, sum(losses[-100:]) / len(losses[-100:]), rate)
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


def _show(trainer: Trainer, loss: float, rate: float) -> None:
    left = 60 * trainer.config.minutes - trainer.seconds
    if trainer.config.lines:
        left = (trainer.config.lines - trainer.lines) / max(rate, 1e-9)
    print(
        f"{100 * trainer.progress:5.1f} %  step {trainer.step}  {trainer.lines} lines  loss {loss:.3f}"
        f"  {rate:.1f} lines/s  {left / 60:.0f} min left",
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
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    alphabet = Alphabet(DEFAULT_CHARACTERS)
    saved = None
    if options.init is not None:
        saved = (Checkpoint.from_bundle if options.init.is_dir() else Checkpoint.load)(options.init)
        alphabet = Alphabet(saved.characters)
    trainer = Trainer(config, alphabet, device, options.out, replicas)
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
        pen=options.pen_share,
        font=options.font_share,
        copiste=options.copiste_share,
        historical=options.historical_share,
        folder=options.folder_share,
        recompose=not options.no_recompose,
    )
    line = LineFormat()
    dataset = LineDataset(
        make_sources(source_config), alphabet, line, config.batch_pixels, config.seed, trainer.rounds, replicas.rank
    )
    sets: dict[str, list[Sample]] = {}
    if options.data is not None and replicas.rank == 0:
        every = validation_sets(options.data, line)
        sets = {name: _spread(samples, config.validation_lines) for name, samples in every.items()}
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=16 if options.workers else None,
        pin_memory=device.type == "cuda",
    )
    parameters = sum(p.numel() for p in trainer.network.parameters())
    print(f"{parameters / 1e6:.2f} M parameters on {device}, {torch.get_num_threads()} threads", flush=True)
    try:
        finished = run(trainer, iter(loader), sets, 60 * options.limit_minutes)
    except KeyboardInterrupt:
        if replicas.rank == 0:
            trainer.checkpoint().save(last)
        print("stopped; the same command goes on")
        return 130
    print("finished" if finished else "piece done; the same command goes on")
    return 0


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """Evenly spread ``count`` of the samples."""
    step = max(len(samples) // max(count, 1), 1)
    return samples[::step][:count]


if __name__ == "__main__":
    sys.exit(main())
