"""Where training lines come from, and the command-line options that say so."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longhand_training.command_line import add_own_lines, refuse_parts_of_nothing
from longhand_training.config import number
from longhand_training.iam import IAM_TRAINING, IAM_VALIDATION

# Kinds of lines in the data folder, by the fields of SourceConfig that hold their shares.
_PACKS = ("pen", "font", "copiste", "historical")
_HOLD_OUT = 0.1


@dataclass(frozen=True)
class SourceConfig:
    """Where training lines come from; a weight of 0, or a path that is None, leaves a source out.

    Attributes:
        data: folder with the packs (``iamondb_strokes.npz``, ``copiste_lines.tar``,
            ``historical_lines.tar``, ``text/``).
        fonts: folder of handwriting fonts.
        folders: a user's own folders or TSV files of line images.
        iam: root of the IAM database in its own layout.
        iam_ids: its lines to train on (:func:`longhand_training.iam.iam_ids`).
        hold_out: share of the lines of each folder that are not trained on, but validated on.
        validate: folders or TSV files of own lines to validate on.
        validate_iam_ids: IAM's lines to validate on; None for its validation part beside its training part.
        pen, font, copiste, historical, folder: share of each kind, relative to their sum.
        recompose: whether pen lines are joined and recomposed, or taken as written only.
        other_hands: whether pen lines are changed as if others had written them (:mod:`longhand_training.hands`).
        cuts: file of word places (:mod:`longhand_training.word_cuts`): scans are recomposed, too, and those
            whose label does not fit are left out.
    """

    data: Path | None = None
    fonts: Path | None = None
    folders: tuple[Path, ...] = ()
    iam: Path | None = None
    iam_ids: str = IAM_TRAINING
    hold_out: float = 0.0
    validate: tuple[Path, ...] = ()
    validate_iam_ids: str | None = None
    pen: float = 0.52
    font: float = 0.13
    copiste: float = 0.22
    historical: float = 0.13
    folder: float = 1.0
    recompose: bool = True
    other_hands: bool = True
    cuts: Path | None = None

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> SourceConfig:
        """The options of :func:`add_source_options`."""
        return cls(
            data=options.data,
            fonts=options.fonts,
            folders=tuple(options.folder),
            iam=options.iam,
            iam_ids=options.iam_ids,
            hold_out=0.0 if options.validate else options.hold_out,
            validate=tuple(options.validate),
            validate_iam_ids=options.validate_iam_ids,
            pen=options.pen_share,
            font=options.font_share,
            copiste=options.copiste_share,
            historical=options.historical_share,
            folder=options.folder_share,
            recompose=not options.no_recompose,
            other_hands=not options.no_other_hands,
            cuts=options.word_cuts,
        )

    def record(self) -> dict[str, Any]:
        """Shares, and which sources there were, as plain values for a checkpoint."""
        return {
            **{f"{kind}_share": getattr(self, kind) for kind in (*_PACKS, "folder")},
            "recompose": self.recompose,
            "other_hands": self.other_hands,
            "word_cuts": self.cuts is not None,
            "fonts": self.fonts is not None,
            "own_lines": [str(path) for path in self.folders],
            "own_validation_lines": [str(path) for path in self.validate],
            "hold_out": self.hold_out,
            "validate_iam_ids": self.validate_iam_ids,
            "iam": self.iam is not None,
            "iam_ids": self.iam_ids,
        }


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where training lines come from."""
    group = parser.add_argument_group("training lines")
    group.add_argument("--data", type=Path, help="folder with the packs (see training/README.md)")
    group.add_argument("--fonts", type=Path, help="folder made by python -m longhand_training.fonts")
    add_own_lines(group, IAM_TRAINING)
    group.add_argument(
        "--validate-iam-ids",
        help="its lines to validate on, which are not trained on: a part or a file of ids "
        f"(default: {IAM_VALIDATION}, with --iam-ids {IAM_TRAINING} only)",
    )
    kept_back = group.add_mutually_exclusive_group()
    kept_back.add_argument(
        "--hold-out",
        type=number(float, 0, 0.5),
        default=_HOLD_OUT,
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
    for pack in _PACKS:
        group.add_argument(
            f"--{pack}-share",
            type=number(float, 0),
            default=getattr(SourceConfig, pack),
            help="(default: %(default)s)",
        )
    group.add_argument(
        "--folder-share",
        type=number(float, 0),
        default=SourceConfig.folder,
        help="share of own lines (default: %(default)s)",
    )


def refuse_unused(options: argparse.Namespace) -> None:
    """Options that mean nothing without the data they are of would go unnoticed, and into the record.

    Raises:
        ValueError: one is named without that data (it is in the message).
    """
    refuse_parts_of_nothing(options, hold_out=_HOLD_OUT)
    if options.iam is None and options.validate_iam_ids is not None:
        raise ValueError("--validate-iam-ids needs --iam (the database)")
    if not options.folder and options.iam is None and options.folder_share != SourceConfig.folder:
        raise ValueError("--folder-share needs --folder or --iam (own lines)")
    if options.data is not None:
        return
    for option, is_named, what in (
        ("--fonts", options.fonts is not None, "text"),
        ("--no-recompose", options.no_recompose, "pen lines"),
        ("--no-other-hands", options.no_other_hands, "pen lines"),
        *(
            (f"--{pack}-share", getattr(options, f"{pack}_share") != getattr(SourceConfig, pack), "lines")
            for pack in _PACKS
        ),
    ):
        if is_named:
            raise ValueError(f"{option} needs --data (its {what})")
