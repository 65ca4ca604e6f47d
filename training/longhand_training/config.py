"""Settings of a training run; each field is also a command-line option of ``longhand_training.train``."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longhand_server.config import NetworkConfig


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. The schedule runs over ``minutes`` of training time, summed over resumed pieces.

    ``lines`` makes it run over a number of lines instead, whatever the machine: for comparisons.
    """

    minutes: float = _option(120.0, "length of the whole run, minutes of training (validation not counted)")
    lines: int = _option(0, "length of the whole run in lines, instead of minutes; 0: minutes count")
    learning_rate: float = _option(1.5e-3, "peak learning rate of AdamW")
    weight_decay: float = _option(1e-2, "decoupled weight decay")
    warm_up: float = _option(0.03, "part of the run in which the learning rate rises to its peak")
    batch_pixels: int = _option(14_000, "lines of a batch times their width, px; on a GPU some 100,000")
    repeats: int = _option(
        1, "times each line that was made is shown, bent anew: for a GPU that waits for lines"
    )
    shortcut_weight: float = _option(0.1, "weight of the auxiliary CTC head's loss; 0 leaves it out")
    consistency: float = _option(
        0.0, "weight of the agreement between two masked looks at each line (CR-CTC: 0.2); 0 takes one look"
    )
    ema: float = _option(0.999, "decay per step of the averaged weights; 0 keeps the raw weights")
    clip: float = _option(5.0, "largest gradient norm")
    channels: tuple[int, ...] = _option((16, 32, 64, 128), "channels of stem and stages")
    blocks: tuple[int, ...] = _option((1, 2, 2), "residual blocks of each stage")
    hidden: int = _option(256, "LSTM units of one direction")
    layers: int = _option(2, "LSTM layers")
    dropout: float = _option(0.1, "dropout between the LSTM layers and before the output")
    validate_every: float = _option(8.0, "minutes between validations")
    validation_lines: int = _option(150, "lines of each validation set read while training")
    patience: int = _option(0, "stop after this many validations without a better mean CER; 0 never")
    checkpoint_every: float = _option(2.0, "minutes between checkpoints")
    seed: int = _option(1, "of weights, drawing and augmentation")

    def __post_init__(self) -> None:
        for name in (
            "minutes",
            "learning_rate",
            "batch_pixels",
            "repeats",
            "clip",
            "validate_every",
            "checkpoint_every",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, need more than 0")
        for name in ("warm_up", "ema", "shortcut_weight", "consistency"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"--{name.replace('_', '-')}: got {getattr(self, name)}, need 0 <= value < 1"
                )

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """One option a field, named like it."""
        for item in dataclasses.fields(cls):
            option = "--" + item.name.replace("_", "-")
            text = f"{item.metadata['help']} (default: {item.default})"
            if isinstance(item.default, tuple):
                parser.add_argument(
                    option, type=int, nargs=len(item.default), default=item.default, help=text
                )
            else:
                parser.add_argument(option, type=type(item.default), default=item.default, help=text)

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> TrainingConfig:
        """The parsed options as a configuration.

        Raises:
            ValueError: a value out of range, named by its option.
        """
        values: dict[str, Any] = {}
        for item in dataclasses.fields(cls):
            value = getattr(options, item.name)
            values[item.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def sized_like(config: TrainingConfig, network: NetworkConfig) -> TrainingConfig:
    """The configuration with the size of a given network, which is to be trained further.

    Raises:
        ValueError: another size was asked for in so many words.
    """
    sizes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        if item.name in ("channels", "blocks", "hidden", "layers"):
            wanted, there = getattr(config, item.name), getattr(network, item.name)
            if wanted not in (item.default, there):
                raise ValueError(f"--{item.name}: got {wanted}, but the network of --init has {there}")
            sizes[item.name] = there
    return dataclasses.replace(config, **sizes)


def source_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_source_options` as plain values: shares, and which sources there were."""
    return {
        **{name: value for name, value in vars(options).items() if name.endswith("_share")},
        "recompose": not options.no_recompose,
        "word_cuts": options.word_cuts is not None,
        "fonts": options.fonts is not None,
        "own_lines": [str(path) for path in options.folder],
        "hold_out": options.hold_out,
        "iam": options.iam is not None,
        "iam_ids": options.iam_ids,
    }


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where training lines come from."""
    group = parser.add_argument_group("training lines")
    group.add_argument("--data", type=Path, help="folder with the packs (see training/README.md)")
    group.add_argument("--fonts", type=Path, help="folder made by python -m longhand_training.fonts")
    group.add_argument("--folder", type=Path, action="append", default=[], help="own lines: folder or TSV")
    group.add_argument("--iam", type=Path, help="root of the IAM database (lines.txt, lines/)")
    group.add_argument(
        "--iam-ids",
        default="aachen_train",
        help="its lines: aachen_train (validates on aachen_validation), all, or a file of ids (default: %(default)s)",
    )
    group.add_argument(
        "--hold-out",
        type=float,
        default=0.1,
        help="share of the lines of each --folder to validate on, 0 to 0.5 (default: %(default)s)",
    )
    group.add_argument("--no-recompose", action="store_true", help="take pen lines only as written")
    group.add_argument(
        "--word-cuts",
        type=Path,
        help="file of longhand_training.word_cuts: every second scan is made anew from words of its page",
    )
    for name, share in (("pen", 0.52), ("font", 0.13), ("copiste", 0.22), ("historical", 0.13)):
        group.add_argument(f"--{name}-share", type=float, default=share, help=f"(default: {share})")
    group.add_argument("--folder-share", type=float, default=1.0, help="share of own lines (default: 1)")
