"""Settings of a training run; each field is also a command-line option of ``longhand_training.train``."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longhand_server.config import NetworkConfig

# Where the packs are looked for.
DATA = Path("../shared/data")
# The peak of a whole run would damage weights that read well already.
FINE_TUNING_RATE = 3e-4


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def number(
    kind: type[int] | type[float], least: float, most: float = math.inf
) -> Callable[[str], int | float]:
    """A finite number from ``least`` to ``most`` as the ``type`` of a command-line option."""

    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
            sort = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"got {text!r}, need a {sort}, {bounds}")
        return value

    return parse


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. The schedule runs over ``minutes`` of training time, summed over resumed pieces.

    ``lines`` makes it run over a number of lines instead, whatever the machine: for comparisons.
    """

    minutes: float = _option(120.0, "length of the whole run, minutes of training (validation not counted)")
    lines: int = _option(0, "length of the whole run in lines, instead of minutes; 0: minutes count")
    learning_rate: float = _option(
        1.5e-3, f"peak learning rate of AdamW; with --init {FINE_TUNING_RATE} unless it is named"
    )
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
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{name.replace('_', '-')}: got {value}, need a finite number")
        for name in (
            "minutes",
            "learning_rate",
            "batch_pixels",
            "repeats",
            "clip",
            "validate_every",
            "validation_lines",
            "checkpoint_every",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, need more than 0")
        for name in ("lines", "patience", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{name.replace('_', '-')}: got {getattr(self, name)}, need at least 0")
        for name in ("warm_up", "ema", "shortcut_weight", "consistency"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"--{name.replace('_', '-')}: got {getattr(self, name)}, need 0 <= value < 1"
                )

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """One option a field, named like it; what is not named is not in the parsed options."""
        for item in dataclasses.fields(cls):
            option = "--" + item.name.replace("_", "-")
            text = f"{item.metadata['help']} (default: {item.default})"
            absent = argparse.SUPPRESS
            if isinstance(item.default, tuple):
                parser.add_argument(option, type=int, nargs=len(item.default), default=absent, help=text)
            else:
                parser.add_argument(option, type=type(item.default), default=absent, help=text)

    @classmethod
    def from_options(cls, options: argparse.Namespace, **defaults: Any) -> TrainingConfig:
        """The parsed options as a configuration.

        Args:
            options: parsed by a parser with :meth:`add_options`.
            defaults: values of options that were not named, where they differ from the fields' own.

        Raises:
            ValueError: a value out of range, named by its option.
        """
        values = dict(defaults)
        for item in dataclasses.fields(cls):
            if hasattr(options, item.name):
                value = getattr(options, item.name)
                values[item.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def sized_like(config: TrainingConfig, network: NetworkConfig) -> TrainingConfig:
    """The configuration with the size of a given network, which is to be trained further.

    Raises:
        ValueError: a size is named that is not the network's.
    """
    sizes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        if item.name in ("channels", "blocks", "hidden", "layers"):
            wanted, there = getattr(config, item.name), getattr(network, item.name)
            if wanted not in (item.default, there):
                raise ValueError(f"--{item.name}: got {wanted}, but the network that is to go on has {there}")
            sizes[item.name] = there
    return dataclasses.replace(config, **sizes)
