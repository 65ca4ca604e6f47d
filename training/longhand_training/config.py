"""Settings of a training run; each field is also a command-line option of ``longhand_training.train``."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longhand_server.config import NetworkConfig
from longhand_training.iam import IAM_TRAINING

# Where the packs are looked for.
DATA = Path("../shared/data")
# The peak of a whole run would damage weights that read well already.
FINE_TUNING_RATE = 3e-4


# Default shares of what the data folder holds.
_PACK_SHARES = {"pen": 0.52, "font": 0.13, "copiste": 0.22, "historical": 0.13}

# Values of the options of :func:`add_source_options` that mean nothing without other ones, where they are not named.
_ABSENT: Mapping[str, Any] = {
    "iam_ids": IAM_TRAINING,
    "validate_iam_ids": None,
    "hold_out": 0.1,
    "folder_share": 1.0,
    "fonts": None,
    "no_recompose": False,
    "no_other_hands": False,
    **{f"{name}_share": share for name, share in _PACK_SHARES.items()},
}


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
        ValueError: another size was asked for in so many words.
    """
    sizes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        if item.name in ("channels", "blocks", "hidden", "layers"):
            wanted, there = getattr(config, item.name), getattr(network, item.name)
            if wanted not in (item.default, there):
                raise ValueError(f"--{item.name}: got {wanted}, but the network that is to go on has {there}")
            sizes[item.name] = there
    return dataclasses.replace(config, **sizes)


def source_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_source_options` as plain values: shares, and which sources there were."""
    return {
        **{name: value for name, value in vars(options).items() if name.endswith("_share")},
        "recompose": not options.no_recompose,
        "other_hands": not options.no_other_hands,
        "word_cuts": options.word_cuts is not None,
        "fonts": options.fonts is not None,
        "own_lines": [str(path) for path in options.folder],
        "own_validation_lines": [str(path) for path in options.validate],
        "hold_out": hold_out(options),
        "validate_iam_ids": options.validate_iam_ids,
        "iam": options.iam is not None,
        "iam_ids": options.iam_ids,
    }


def hold_out(options: argparse.Namespace) -> float:
    """The share of own lines that is kept back for validation: none where ``--validate`` names others."""
    return 0.0 if options.validate else float(options.hold_out)


def refuse_unused(options: argparse.Namespace) -> None:
    """Options that mean nothing without the data they are of would go unnoticed, and into the record.

    Raises:
        ValueError: one is named without that data (it is in the message).
    """
    named = {name: getattr(options, name) != absent for name, absent in _ABSENT.items()}
    if options.iam is None:
        for name in ("iam_ids", "validate_iam_ids"):
            if named[name]:
                raise ValueError(f"--{name.replace('_', '-')} needs --iam (the database)")
    if not options.folder and named["hold_out"]:
        raise ValueError("--hold-out needs --folder (its lines)")
    if not options.folder and options.iam is None and named["folder_share"]:
        raise ValueError("--folder-share needs --folder or --iam (own lines)")
    if options.data is not None:
        return
    for name, what in (
        ("fonts", "text"),
        ("no_recompose", "pen lines"),
        ("no_other_hands", "pen lines"),
        *((f"{pack}_share", "lines") for pack in _PACK_SHARES),
    ):
        if named[name]:
            raise ValueError(f"--{name.replace('_', '-')} needs --data (its {what})")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where training lines come from."""
    group = parser.add_argument_group("training lines")
    group.add_argument("--data", type=Path, help="folder with the packs (see training/README.md)")
    group.add_argument("--fonts", type=Path, help="folder made by python -m longhand_training.fonts")
    group.add_argument("--folder", type=Path, action="append", default=[], help="own lines: folder or TSV")
    group.add_argument("--iam", type=Path, help="root of the IAM database (lines.txt, lines/)")
    group.add_argument(
        "--iam-ids",
        default=_ABSENT["iam_ids"],
        help="its lines: aachen_train (validates on aachen_validation), all, or a file of ids (default: %(default)s)",
    )
    group.add_argument(
        "--validate-iam-ids",
        help="its lines to validate on, which are not trained on: a part or a file of ids",
    )
    kept_back = group.add_mutually_exclusive_group()
    kept_back.add_argument(
        "--hold-out",
        type=number(float, 0, 0.5),
        default=_ABSENT["hold_out"],
        help="share of the lines of each --folder to validate on, 0 to 0.5 (default: %(default)s)",
    )
    kept_back.add_argument(
        "--validate",
        type=Path,
        action="append",
        default=[],
        help="own lines to validate on instead, folder or TSV; every other line of each --folder is trained on",
    )
    group.add_argument("--no-recompose", action="store_true", help="take pen lines only as written")
    group.add_argument(
        "--no-other-hands", action="store_true", help="do not change pen lines as if others had written them"
    )
    group.add_argument(
        "--word-cuts",
        type=Path,
        help="file of longhand_training.word_cuts: every second scan is made anew from words of its page",
    )
    for name, share in _PACK_SHARES.items():
        group.add_argument(
            f"--{name}-share", type=number(float, 0), default=share, help=f"(default: {share})"
        )
    group.add_argument(
        "--folder-share",
        type=number(float, 0),
        default=_ABSENT["folder_share"],
        help="share of own lines (default: 1)",
    )
