"""One piece of a training run: from its start, or where the last piece stopped, until it ends or is stopped."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_training.checkpoint import Checkpoint
from longhand_training.config import FINE_TUNING_RATE, TrainingConfig, sized_like
from longhand_training.dataset import Batch, LineDataset, Sample
from longhand_training.line_sets import make_sources, own_validation_sets, validation_sets
from longhand_training.loop import run
from longhand_training.replicas import ProcessLostError, Replicas, others_started
from longhand_training.source_config import SourceConfig, refuse_unused
from longhand_training.stopping import Stopped, StopSignals, heed_parent_only
from longhand_training.text import DEFAULT_CHARACTERS, read_characters
from longhand_training.trainer import Trainer


def train(options: argparse.Namespace) -> int:
    """Trains with the options of :mod:`longhand_training.train`; gives the exit status.

    Raises:
        ValueError, OSError, InvalidModelError: what is asked for cannot be had (named).
        ArithmeticError: too many steps in a row were not finite.
    """
    count = options.processes if options.rank == 0 else 1
    meeting_point = options.out / "meeting_point"
    signals = StopSignals()
    with contextlib.ExitStack() as stack:
        if options.rank == 0:
            stack.enter_context(_locked_folder(options.out))
            meeting_point.unlink(missing_ok=True)
        others = others_started(count, "longhand_training.train", sys.argv[1:], os.environ)
        started = stack.enter_context(others)
        try:
            replicas = Replicas(options.rank, options.processes, meeting_point, started)
            if options.rank == 0:
                signals.install()  # not while it waits for the others, where nothing could be heeded
            return _train(options, replicas, signals)
        except ProcessLostError as error:
            if options.rank == 0:
                ended = [
                    f"process {rank} ended ({process.returncode})"
                    for rank, process in enumerate(started, 1)
                    if process.poll() is not None
                ]
                print(f"train: {', '.join(ended) or error}; the same command goes on", file=sys.stderr)
            return 2


def _locked_folder(out: Path) -> IO[str]:
    """Makes the run's folder and keeps other runs out of it for as long as the file that it gives is open.

    Raises:
        ValueError: nothing can be written there, which shows now and not at the first checkpoint; or another run is
            at work there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"--out: {out} is no folder to write into: {error.strerror}") from error
    try:
        # Forked workers do not share this kind of lock: it ends with this process, however that ends.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise ValueError(f"--out: another run is at work in {out}") from None
    except OSError:
        pass  # some network's file system, which has no locks
    return file


def _train(options: argparse.Namespace, replicas: Replicas, signals: StopSignals) -> int:
    trainer = None
    finished = False
    failed: Exception | None = None
    # What is said of the lines, the first process says for all.
    said = contextlib.redirect_stderr(io.StringIO()) if replicas.rank else contextlib.nullcontext()
    try:
        with signals.interruptible(), said:
            trainer, batches, sets = _prepared(options, replicas)
        finished = run(trainer, batches, sets, 60 * options.limit_minutes, signals)
    except Stopped:
        pass  # its checkpoint follows, as at any other end
    except ProcessLostError as error:
        failed = error  # so that no more than a step is lost
    except torch.OutOfMemoryError:
        if trainer is None:
            raise  # whatever the batches: the GPU is full of something else
        failed = ValueError(
            f"--batch-pixels: got {trainer.config.batch_pixels}, more than the GPU has memory for; "
            "the same command with a smaller number goes on"
        )
    if trainer is not None and trainer.step and replicas.rank == 0:
        trainer.checkpoint().save(options.out / "last.pt")
    if failed is not None:
        raise failed
    if signals.received is not None:
        print("stopped; the same command goes on")
    else:
        print("finished" if finished else "piece done; the same command goes on")
        if finished and trainer is not None and replicas.rank == 0:
            print(trainer.summary())
    return signals.exit_status


def _prepared(
    options: argparse.Namespace, replicas: Replicas
) -> tuple[Trainer, Iterator[Batch], dict[str, list[Sample]]]:
    """The trainer as it begins or goes on, its lines, and its validation sets (in the first process only)."""
    refuse_unused(options)
    # OpenCV's threads do not survive the fork of the loader's workers, and would only get in their way.
    cv2.setNumThreads(0)
    device = _device(options.device)
    if replicas.count > 1 and device.type != "cpu":
        raise ValueError(
            f"--processes: got {replicas.count}; more than one is for --device cpu, not {device}"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    trainer = _trainer(options, device, replicas)
    config = trainer.config
    source_config = SourceConfig.from_options(options)
    sources = make_sources(source_config)
    if not any(share for _, share, _ in sources):
        named = ", ".join(name for name, _, _ in sources)
        raise ValueError(f"no training lines: every source has a share of 0 ({named}; --folder-share)")
    line = LineFormat()
    dataset = LineDataset(
        sources,
        trainer.alphabet,
        line,
        config.batch_pixels,
        config.seed,
        trainer.rounds,
        replicas.rank,
        config.repeats,
    )
    dataset.sample(np.random.default_rng(config.seed))  # raises here, in one line, if no line can be used
    batches = _batches(dataset, options.workers, device)  # made from now on, while validation lines are read
    sets: dict[str, list[Sample]] = {}
    if replicas.rank == 0:
        sets = _validation(source_config, trainer.alphabet, line, config.validation_lines)
        if not sets:
            ways = "--validate or --hold-out" if options.iam is None else "--validate or --validate-iam-ids"
            print(f"nothing to validate on: best.pt will be the last weights; name {ways}")
        trainer.validates_on(sets)
        if sets and trainer.initialised and trainer.validates_on_few:
            print(
                f"validation lines: {sum(trainer.set_sizes.values())}, too few to tell whether training does good: "
                "best.pt will be trained weights in any case"
            )
    parameters = sum(p.numel() for p in trainer.network.parameters())
    print(f"{parameters / 1e6:.2f} M parameters on {device}, {torch.get_num_threads()} threads", flush=True)
    return trainer, batches, sets


def _batches(dataset: LineDataset, workers: int, device: torch.device) -> Iterator[Batch]:
    """The dataset's batches, made beforehand by worker processes; without any, by this one when asked for."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=16 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=heed_parent_only,
    )
    batches = iter(loader)
    if workers:
        # Of a worker that dies PyTorch's handler would tell in the middle of a step; the next batch tells, too.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return batches


def _device(name: str) -> torch.device:
    """The device of ``--device``.

    Raises:
        ValueError: no such device here.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not (
        device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count)
    ):
        raise ValueError(f"--device: got {name!r}, need auto, cpu or cuda[:i]; CUDA devices here: {count}")
    return device


def _trainer(options: argparse.Namespace, device: torch.device, replicas: Replicas) -> Trainer:
    """A run that goes on from its ``last.pt`` where there is one, or else begins, from ``--init`` if named."""
    last = options.out / "last.pt"
    stopped = saved = None
    init = options.init and str(options.init)
    defaults: dict[str, Any] = {}
    if last.exists():
        stopped = Checkpoint.load(last)
        init = _origin(stopped, options)
        kept = ("learning_rate", "weight_decay")
        defaults = {name: stopped.settings[name] for name in kept if name in stopped.settings}
    elif options.init is not None:
        saved = (Checkpoint.from_bundle if options.init.is_dir() else Checkpoint.load)(options.init)
        defaults = {"learning_rate": FINE_TUNING_RATE}
    config = TrainingConfig.from_options(options, **defaults)
    characters = DEFAULT_CHARACTERS if options.characters is None else read_characters(options.characters)
    if weights := stopped or saved:
        config = sized_like(config, weights.network)
        if options.characters is None:
            characters = weights.characters
    trainer = Trainer(config, Alphabet(characters), device, options.out, replicas)
    trainer.sources = {"init": init, **SourceConfig.from_options(options).record()}
    if stopped is not None:
        trainer.resume(stopped)
        print(f"going on at {100 * trainer.progress:.1f} %, step {trainer.step}")
    elif saved is not None:
        trainer.initialise(saved)
    return trainer


def _origin(stopped: Checkpoint, options: argparse.Namespace) -> str | None:
    """What the run that goes on began from; the file may be gone by now.

    Raises:
        ValueError: ``--init`` names something else.
    """
    recorded = stopped.settings.get("init")
    if options.init is not None and "init" in stopped.settings:
        same = recorded is not None and Path(recorded).resolve() == options.init.resolve()
        if not same and recorded != str(options.init):
            raise ValueError(
                f"--init {options.init}: {options.out} holds a run from {recorded or 'new weights'}; name another "
                "--out"
            )
    return recorded


def _validation(
    sources: SourceConfig, alphabet: Alphabet, line: LineFormat, count: int
) -> dict[str, list[Sample]]:
    """Lines that no source trains on, whichever folder or table they come from: of the packs, and own ones."""
    sets = {} if sources.data is None else validation_sets(sources.data, line, count)
    sets.update(own_validation_sets(sources, alphabet, line, count))
    return {name: samples for name, samples in sets.items() if samples}
