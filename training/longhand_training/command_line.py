"""What the commands have in common: how they fail, and the options that name own lines."""

from __future__ import annotations

import argparse
import functools
import io
import re
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from longhand_training.config import number
from longhand_training.iam import EVERY_LINE, IAM_PARTITIONS


class HelpFormatter(argparse.HelpFormatter):
    """Fills each paragraph of a docstring to the terminal's width, without its markup."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        plain = re.sub(r":\w+:(?=`)", "", text).replace("``", "`")
        paragraphs = (" ".join(one.split()) for one in plain.strip().split("\n\n"))
        return "\n\n".join(textwrap.fill(one, width, break_on_hyphens=False) for one in paragraphs)


def exit_status(
    name: str, *errors: type[Exception]
) -> Callable[[Callable[[], int | None]], Callable[[], int]]:
    """Makes a ``main`` give an exit status: its own (None: 0), 2 for these errors, 130 for Ctrl-C.

    An error is one line of stderr, Ctrl-C none: a traceback tells people nothing of either.
    """

    def decorate(main: Callable[[], int | None]) -> Callable[[], int]:
        @functools.wraps(main)
        def run() -> int:
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see __init__.py
                signal.signal(signal.SIGINT, signal.default_int_handler)
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")  # names of files may be odd bytes
            try:
                return main() or 0
            except errors as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                return 130

        return run

    return decorate


def add_own_lines(group: argparse._ActionsContainer, part: str, *, hold_out: bool = False) -> None:
    """The options that name own lines: ``--folder``, ``--iam`` with ``--iam-ids``, and ``--hold-out`` if asked for.

    Args:
        group: that they join.
        part: of the IAM database, where ``--iam-ids`` does not name one.
        hold_out: whether a part of each folder can be named.
    """
    group.add_argument("--folder", type=Path, action="append", default=[], help="own lines: folder or TSV")
    group.add_argument("--iam", type=Path, help="root of the IAM database (lines.txt, lines/)")
    known = ", ".join((*IAM_PARTITIONS, EVERY_LINE))
    group.add_argument(
        "--iam-ids", default=part, help=f"its lines: {known} or a file of ids (default: %(default)s)"
    )
    if hold_out:
        group.add_argument(
            "--hold-out",
            type=number(float, 0, 0.5),
            default=0.0,
            help="of each --folder only the lines that training with this --hold-out has not seen; 0: all",
        )
    group.set_defaults(iam_part=part, hold_out=0.0)


def refuse_parts_of_nothing(options: argparse.Namespace, hold_out: float = 0.0) -> None:
    """A part of lines that are not named would go unnoticed.

    Args:
        options: of :func:`add_own_lines`.
        hold_out: what ``--hold-out`` is where it is not named.

    Raises:
        ValueError: one says which part, without what it is of.
    """
    if options.hold_out != hold_out and not options.folder:
        raise ValueError("--hold-out needs --folder (its lines)")
    if options.iam is None and options.iam_ids != options.iam_part:
        raise ValueError("--iam-ids needs --iam (the database)")
