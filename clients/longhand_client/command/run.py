"""`longhand IMAGE ...` from its arguments to its exit code."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TextIO

from longhand_client.client import RecognizerClient
from longhand_client.command.arguments import (
    ARCHIVE_FORMATS,
    connects,
    make_client,
    parse_read,
    read_parser,
    recognition_options,
)
from longhand_client.command.in_process import in_process_client
from longhand_client.command.inputs import (
    STANDARD_INPUT,
    SUFFIXES,
    find_items,
    is_read_once,
    read_references,
)
from longhand_client.command.outputs import (
    Details,
    JsonWriter,
    TextWriter,
    TsvWriter,
    Writer,
    finished_names,
)
from longhand_client.command.program import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, errors_of_usage
from longhand_client.command.progress import Progress
from longhand_client.command.read import ArchiveWriter, Drawings, ReadJob, Report, read_items
from longhand_client.command.services import COMMANDS
from longhand_client.command.standard_streams import tell
from longhand_client.errors import LonghandError

STANDARD_OUTPUT = "-"


def read(arguments: Sequence[str]) -> int:
    """Reads the images named in the arguments.

    Returns:
        The exit code: 0, 1 (some image failed) or 130 (stopped by Ctrl-C).

    Raises:
        LonghandError: the service as a whole failed; what was read until then is written.
        SystemExit: 2, for arguments that make no sense.
    """
    usage = read_parser()
    options = parse_read(usage, arguments)
    if options.out == STANDARD_OUTPUT:
        options.out = None
    _check(usage, options)
    report = Report()
    with ExitStack() as resources:
        with errors_of_usage(usage):
            finished = finished_names(Path(options.out), options.format) if options.resume else set()
            references = None if options.reference is None else read_references(options.reference)
            client = resources.enter_context(_client(options))
            request = recognition_options(options, client)
            stream = resources.enter_context(_output(options))
        job = ReadJob(
            options=request,
            writer=_writer(options, stream),
            finished=frozenset(finished),
            references=references,
            drawings=None if options.show is None else Drawings(Path(options.show)),
            align=options.format == "text" and options.out is None,
            colour=_in_colour(),
            look_ahead=options.look_ahead,
            alone=options.format == "text" and not _several(options),
        )
        return _read(client, options, job, report)


def _in_colour() -> bool:
    """As terminals' users say it: https://no-color.org and https://force-color.org."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _client(options: argparse.Namespace) -> RecognizerClient:
    if not options.local:
        return make_client(options)
    folder = ""
    if options.model and Path(options.model).is_dir():
        # It becomes the default model, whatever its own name is.
        folder, options.model = options.model, ""
    return in_process_client(folder, options.timeout)


def _read(client: RecognizerClient, options: argparse.Namespace, job: ReadJob, report: Report) -> int:
    # Where readings come on the terminal they show how far it is, and the bar would stand among them.
    shown = sys.stderr.isatty() and not (options.out is None and sys.stdout.isatty())
    progress = Progress(sys.stderr, _total(options) if shown else None, enabled=shown)
    try:
        read_items(client, find_items(options.images, options.manifest), job, progress, report)
    except BrokenPipeError:  # whoever read our output has what they want
        raise
    except (KeyboardInterrupt, LonghandError, OSError) as error:
        progress.clear()
        goes_on = options.out is not None and options.format in ("json", "tsv")
        hint = ", the same command goes on with --resume" if goes_on else ""
        if not isinstance(error, KeyboardInterrupt):
            if report.read:
                tell(f"longhand: {_images(report.read)} read{hint}")
            raise
        tell(f"longhand: stopped; {_images(report.read)} read{hint}")
        return EXIT_INTERRUPTED
    finally:
        progress.clear()
        _summarise(report, options)
    unscored = job.references is not None and report.read and not report.score.lines
    return EXIT_FAILED if report.failures or unscored else EXIT_OK


def _check(usage: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.images and options.manifest is None:
        usage.error("name at least one image, folder or pattern, or a --manifest")
    for name in COMMANDS:
        if name in options.images and not Path(name).exists():
            usage.error(f"no such file: {name}; as a command it comes first: longhand {name} ...")
    if options.manifest not in (None, STANDARD_INPUT) and not Path(options.manifest).exists():
        usage.error(f"--manifest {options.manifest}: No such file or directory")
    if options.local and connects(options):
        usage.error("--local reads in this process: leave out --address, --token-file and --tls")
    if options.resume and (options.out is None or options.format not in ("json", "tsv")):
        usage.error("--resume needs --out FILE with --json or --tsv: only these say which files are done")
    if options.format == "tsv" and (options.words or options.characters):
        usage.error("--tsv has no columns for words and characters: take --json")
    if options.decoder == "greedy" and options.alternatives > 1:
        usage.error("--alternatives: greedy decoding knows one reading only")
    if options.decoder == "greedy" and (
        options.beam_width or options.lm_weight is not None or options.hotwords
    ):
        usage.error(
            "--beam-width, --lm-weight and --hotwords are the beam search's: leave out --decoder greedy"
        )
    if options.format in ARCHIVE_FORMATS and options.alternatives > 1:
        usage.error(f"--alternatives: --format {options.format} has one reading a line: take --json")
    if options.out is not None:
        _check_out(usage, options)
    if options.format in ARCHIVE_FORMATS and options.out is None and _several(options):
        usage.error(f"--format {options.format} of several images needs --out FOLDER")
    if options.show is not None:
        if importlib.util.find_spec("PIL") is None:
            usage.error("--show needs Pillow: pip install pillow")
        suffix = Path(options.show).suffix.lower()
        if suffix in SUFFIXES - {".png"} and not Path(options.show).is_dir():
            usage.error(f"--show {options.show}: draws PNG files only")
        if suffix == ".png" and _several(options):
            usage.error("--show of several images needs a folder, not one PNG file")


def _check_out(usage: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses what would be lost if --out were opened."""
    if options.format not in ARCHIVE_FORMATS and Path(options.out).suffix.lower() in SUFFIXES:
        usage.error(f"--out {options.out}: got the name of an image, and readings are text (--show draws)")
    for read in (options.manifest, options.reference, options.hotwords, options.token_file):
        if read is not None and Path(read).resolve() == Path(options.out).resolve():
            usage.error(f"--out {options.out} is read as well: name another file")


def _several(options: argparse.Namespace) -> bool:
    """Whether there are several images, or may be."""
    return _has_unknown_rows(options) or len(list(itertools.islice(_names(options), 2))) > 1


def _total(options: argparse.Namespace) -> int | None:
    """How many images there are, where it can be known."""
    return None if _has_unknown_rows(options) else sum(1 for _ in _names(options))


def _has_unknown_rows(options: argparse.Namespace) -> bool:
    """Whether there is a manifest whose rows can be read only once."""
    return options.manifest is not None and is_read_once(options.manifest)


def _names(options: argparse.Namespace) -> Iterator[str]:
    """The names of what the arguments mean, but for unknown rows; nothing is read that can be read only once."""
    arguments = [argument for argument in options.images if argument != STANDARD_INPUT]
    yield from (argument for argument in options.images if argument == STANDARD_INPUT)
    manifest = None if _has_unknown_rows(options) else options.manifest
    yield from (item.name for item in find_items(arguments, manifest))


@contextmanager
def _output(options: argparse.Namespace) -> Iterator[TextIO]:
    try:
        if options.out is None or options.format in ARCHIVE_FORMATS:
            yield sys.stdout
            return
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        mode: Literal["a", "w"] = "a" if options.resume else "w"
        # File names need not be UTF-8, and come out as the bytes that they are.
        with Path(options.out).open(mode, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            yield stream
    except OSError as error:
        # A full disk, for one, does not say which file it is about.
        error.filename = error.filename or options.out or "standard output"
        raise


def _writer(options: argparse.Namespace, stream: TextIO) -> Writer:
    details = Details(
        names=options.format == "text" and _several(options),
        alternatives=options.alternatives > 1,
        words=options.words,
        characters=options.characters,
    )
    if options.format == "json":
        return JsonWriter(stream, details)
    if options.format == "tsv":
        return TsvWriter(stream, details, header=options.out is None or Path(options.out).stat().st_size == 0)
    if options.format == "text":
        return TextWriter(stream, details)
    return ArchiveWriter(options.format, None if options.out is None else Path(options.out))


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _summarise(report: Report, options: argparse.Namespace) -> None:
    if report.skipped:
        tell(f"longhand: {_images(report.skipped)} read by an earlier run")
    if options.reference is not None:
        notes = [f"{report.failures} not read"] if report.failures else []
        notes += [f"{report.skipped} read earlier, not counted"] if report.skipped else []
        text = " ".join([report.score.summary(), *(f"({note})" for note in notes)])
        if options.format == "text" and options.out is None:
            print(text)
        else:
            tell(text)
        for name in report.score.without_reference:
            tell(f"longhand: {name}: no reference")
    if report.failures > 1:
        tell(f"longhand: {report.failures} images could not be read")
