"""Trains the recogniser: ``python -m longhand_training.train --data ../shared/data --out runs/first``.

Stop it when you like (Ctrl-C and SIGTERM save, and end it with 130 and 143), and go on with the same command.
``--init`` fine-tunes: the weights it begins from are validated first, and are best.pt until others read better.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidModelError
from longhand_training.checkpoint import Checkpoint
from longhand_training.config import (
    FINE_TUNING_RATE,
    TrainingConfig,
    add_source_options,
    hold_out,
    number,
    sized_like,
    source_options,
)
from longhand_training.dataset import (
    DEFAULT_CHARACTERS,
    IAM_SET,
    VALIDATION_SETS,
    Batch,
    LineDataset,
    Sample,
    SourceConfig,
    evenly_spread,
    folder_samples,
    held_out_samples,
    iam_validation_samples,
    make_sources,
    validation_sets,
)
from longhand_training.loop import run
from longhand_training.packs import set_names
from longhand_training.replicas import Replicas, others_started
from longhand_training.stopping import Stopped, StopSignals, heed_parent_only
from longhand_training.text import read_characters
from longhand_training.trainer import Trainer

# glibc gives memory back after every step and takes page faults to get it again; keeping it saves 15 % of
# a CPU step (measured; see EXPERIMENTS.md). oneDNN and its wrapper remember what they have prepared, buffers and
# all, for a thousand shapes, and hardly any batch has the shape of another: gigabytes. All of it is read at start
# only, hence the re-execution.
_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
    "LRU_CACHE_CAPACITY": "16",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: checkpoints, logs, curves"
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--init", type=Path, help="checkpoint (.pt) or model folder to fine-tune from")
    begin.add_argument(
        "--characters",
        type=Path,
        help="UTF-8 text with every character that the network is to write (default: English, French and more)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:i]")
    parser.add_argument(
        "--threads", type=number(int, 0), default=0, help="CPU threads of the network; 0: all cores"
    )
    parser.add_argument("--workers", type=number(int, 0), default=1, help="processes that make lines")
    parser.add_argument(
        "--processes",
        type=number(int, 1),
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
            {**_ENVIRONMENT, **os.environ},
        )
    others = options.processes if options.rank == 0 else 1
    meeting_point = options.out / "meeting_point"
    signals = StopSignals()
    try:
        _make_writable(options.out)
        if others > 1:
            meeting_point.unlink(missing_ok=True)
        with others_started(others, "longhand_training.train", sys.argv[1:], os.environ):
            replicas = Replicas(options.rank, options.processes, meeting_point)
            if options.rank == 0:
                signals.install()  # not while it waits for the others, where nothing could be heeded
            return _train(options, replicas, signals)
    except (ValueError, ArithmeticError, InvalidModelError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2


def _make_writable(out: Path) -> None:
    """Makes the run's folder; what cannot be written there shows now, not at the first checkpoint."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(f"--out: {out} is no folder to write into: {error.strerror}") from error


def _train(options: argparse.Namespace, replicas: Replicas, signals: StopSignals) -> int:
    trainer = None
    finished = False
    try:
        with signals.interruptible():
            trainer, batches, sets = _prepared(options, replicas)
        finished = run(trainer, batches, sets, 60 * options.limit_minutes, signals)
    except Stopped:
        pass  # its checkpoint follows, as at any other end
    if trainer is not None and trainer.step and replicas.rank == 0:
        trainer.checkpoint().save(options.out / "last.pt")
    if signals.received is not None:
        print("stopped; the same command goes on")
    else:
        print("finished" if finished else "piece done; the same command goes on")
    return signals.exit_status


def _prepared(
    options: argparse.Namespace, replicas: Replicas
) -> tuple[Trainer, Iterator[Batch], dict[str, list[Sample]]]:
    """The trainer as it begins or goes on, its lines, and its validation sets (in the first process only)."""
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
    source_config = SourceConfig(
        data=options.data,
        fonts=options.fonts,
        folders=tuple(options.folder),
        iam=options.iam,
        iam_ids=options.iam_ids,
        hold_out=hold_out(options),
        pen=options.pen_share,
        font=options.font_share,
        copiste=options.copiste_share,
        historical=options.historical_share,
        folder=options.folder_share,
        recompose=not options.no_recompose,
        other_hands=not options.no_other_hands,
        cuts=options.word_cuts,
    )
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
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=16 if options.workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=heed_parent_only,
    )
    batches = iter(loader)  # lines are made from now on, while validation lines are read
    sets: dict[str, list[Sample]] = {}
    if replicas.rank == 0:
        sets = _validation(source_config, options.validate, line, config.validation_lines)
        trainer.validates_on(sets)
    parameters = sum(p.numel() for p in trainer.network.parameters())
    print(f"{parameters / 1e6:.2f} M parameters on {device}, {torch.get_num_threads()} threads", flush=True)
    return trainer, batches, sets


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
    characters = DEFAULT_CHARACTERS if options.characters is None else read_characters(options.characters)
    last = options.out / "last.pt"
    stopped = Checkpoint.load(last) if last.exists() else None
    defaults = {"learning_rate": FINE_TUNING_RATE} if options.init is not None else {}
    if stopped is not None:
        defaults = {"learning_rate": stopped.settings["learning_rate"]}
    config = TrainingConfig.from_options(options, **defaults)
    saved = None
    if options.init is not None:
        saved = (Checkpoint.from_bundle if options.init.is_dir() else Checkpoint.load)(options.init)
        characters = saved.characters
        config = sized_like(config, saved.network)
    trainer = Trainer(config, Alphabet(characters), device, options.out, replicas)
    trainer.sources = {"init": options.init and str(options.init), **source_options(options)}
    if stopped is not None:
        trainer.resume(stopped)
        if options.init is None:
            trainer.sources["init"] = stopped.settings.get("init")
        print(f"going on at {100 * trainer.progress:.1f} %, step {trainer.step}")
    elif saved is not None:
        trainer.initialise(saved)
    return trainer


def _validation(
    sources: SourceConfig, own: Sequence[Path], line: LineFormat, count: int
) -> dict[str, list[Sample]]:
    """Lines that no source trains on: of the packs, of each folder or ``own``, and of IAM's validation part."""
    sets: dict[str, list[Sample]] = {}
    if sources.data is not None:
        sets.update(validation_sets(sources.data, line, count))
    trained = {_lines_of(folder) for folder in sources.folders}
    if both := [str(folder) for folder in own if _lines_of(folder) in trained]:
        raise ValueError(f"--validate: got {', '.join(both)}, which is trained on (--folder)")
    read = [folder_samples(folder, line) for folder in own]
    if not own:
        read = [held_out_samples(folder, line, sources.hold_out) for folder in sources.folders]
    names = set_names(own or sources.folders, [*VALIDATION_SETS, IAM_SET])
    sets.update(zip(names, read, strict=True))
    if sources.iam is not None and sources.iam_ids == "aachen_train":
        sets[IAM_SET] = iam_validation_samples(sources.iam, line)
    return {name: evenly_spread(samples, count) for name, samples in sets.items() if samples}


def _lines_of(path: Path) -> Path:
    """One path for a folder and for its labels.tsv."""
    path = path.resolve()
    return path.parent if path.name == "labels.tsv" else path


if __name__ == "__main__":
    sys.exit(main())
