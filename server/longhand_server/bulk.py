"""``longhand batch``, ``python -m longhand_server.bulk``: reads any number of images into files of rows."""

from __future__ import annotations

from longhand_server.interrupts import quit_on_interrupt, raise_on_interrupt

if __name__ == "__main__":
    quit_on_interrupt()  # before the rest is imported

import argparse
import contextlib
import fcntl
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from longhand_server.bulk_plan import FOLDER, Plan, import_parquet, make_plan, read_plan
from longhand_server.config import ImageLimits, ModelsConfig, RuntimeConfig, ServerConfig
from longhand_server.errors import ConfigurationError, InvalidModelError, InvalidRequestError, LonghandError
from longhand_server.options import RecognitionOptions
from longhand_server.standard_streams import open_closed_streams, tell
from longhand_server.workers import end_process

_EPILOG = """\
Output is a folder of files part-NNNNNNNN.parquet or .jsonl with one row for
every image: number, name, text, confidence, error. Each appears whole or not
at all, so a run that was killed goes on with --resume where it stopped.
On a cluster (--address) inputs and output lie on a file system that all its
machines share under the same path.

exit codes: 0 all read, 1 some image was not (its row says why), 2 usage or
settings, 130 stopped by Ctrl-C
"""
_EXIT_OK, _EXIT_FAILED, _EXIT_USAGE, _EXIT_STOPPED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    open_closed_streams()
    usage = _parser()
    given = usage.parse_args(arguments)
    if given.readers and given.address is None:
        usage.error("--readers are those of a cluster: say which one with --address, or take --threads")
    if given.decoder == "greedy" and given.beam_width:
        usage.error("--beam-width is the beam search's: leave out --decoder greedy")
    try:
        return _run(given)
    except (ConfigurationError, InvalidRequestError, InvalidModelError) as error:
        tell(f"longhand batch: {error}")
        return _EXIT_USAGE
    except LonghandError as error:
        tell(f"longhand batch: {error}")
        return _EXIT_FAILED
    except OSError as error:
        place = error.filename or given.out  # a full disk does not say which file it is about
        tell(f"longhand batch: {place}: {error.strerror or error}")
        return _EXIT_FAILED
    except KeyboardInterrupt:
        tell("longhand batch: stopped; --resume goes on")
        return _EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="longhand batch",
        description="Reads any number of images of handwritten lines, without a server.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="an image, a folder (searched recursively), a manifest (.tsv, .txt: a path in the first column), a "
        "Parquet file, or a webdataset tar",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the rows")
    parser.add_argument(
        "--format", choices=("parquet", "jsonl"), default="parquet", help="default: %(default)s"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--column", default="image", help="Parquet column with the images (default: %(default)s)"
    )
    parser.add_argument(
        "--chunk",
        type=_count,
        default=500,
        metavar="N",
        help="images in a file of rows (default: %(default)s)",
    )
    _add_place(parser.add_argument_group("where"))
    _add_reading(parser.add_argument_group("how to read"))
    return parser


def _add_place(place: argparse._ArgumentGroup) -> None:
    place.add_argument(
        "--address",
        metavar="HEAD",
        help="spread the work over a Ray cluster: HOST:PORT, auto, or local (default: this process alone)",
    )
    place.add_argument(
        "--readers", type=_count, default=0, metavar="N", help="on Ray: models (default: all CPUs or GPUs)"
    )
    place.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    place.add_argument(
        "--precision", choices=("auto", "full"), default="auto", help="as the server's (default: %(default)s)"
    )
    place.add_argument(
        "--threads", type=_count, default=0, metavar="N", help="images read at a time by one model"
    )


def _add_reading(how: argparse._ArgumentGroup) -> None:
    how.add_argument(
        "--model", default="en", help="a shipped model or a bundle's folder (default: %(default)s)"
    )
    how.add_argument("--decoder", choices=("beam", "greedy"), default="beam", help="default: %(default)s")
    how.add_argument("--beam-width", type=_count, metavar="N", help="hypotheses kept after each frame")
    how.add_argument(
        "--second-look",
        choices=("true", "false"),
        default="true",
        help="as the server's (default: %(default)s)",
    )
    how.add_argument(
        "--max-image-bytes",
        type=_count,
        default=ImageLimits().max_bytes,
        metavar="N",
        help="larger ones are refused",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, need a whole number of at least 1")
    return int(text)


def _config(given: argparse.Namespace) -> ServerConfig:
    return ServerConfig(
        models=ModelsConfig(model=given.model),
        # A reader on a cluster has the core that Ray gave it; this process alone has them all.
        runtime=RuntimeConfig(
            device=given.device,
            precision=given.precision,
            threads=given.threads or int(given.address is not None),
            second_look=given.second_look == "true",
        ),
        image=ImageLimits(max_bytes=given.max_image_bytes),
    )


def _run(given: argparse.Namespace) -> int:
    # Imported late: --help and wrong usage need neither OpenCV nor ONNX Runtime.
    from longhand_server.bulk_ray import read_on_ray
    from longhand_server.registry import find_bundles
    from longhand_server.runtime import choose_device

    raise_on_interrupt()
    config = _config(given)
    options = RecognitionOptions(greedy=given.decoder == "greedy", beam_width=given.beam_width)
    if given.format == "parquet":
        import_parquet()
    # A wrong model or device is told before anything is written.
    bundle = find_bundles(config)[0]
    if given.address is None:
        choose_device(given.device)
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        plan = _plan(given, folder, f"{bundle.name} {bundle.version}")
        left = [
            (offset, count) for number, offset, count in plan.offsets() if not plan.output(number).exists()
        ]
        offsets = [offset for offset, _ in left]
        progress = _Progress(plan.images, plan.images - sum(count for _, count in left), plan.errors())
        if not offsets:
            done: Iterable[tuple[int, int]] = ()
        elif given.address is None:
            done = _read_here(plan, offsets, config, options)
        else:
            done = read_on_ray(plan, offsets, config, options, given.address, given.readers)
        try:
            for images, errors in done:
                progress.add(images, errors)
            progress.end()
        finally:
            progress.close()
        return _EXIT_FAILED if progress.errors else _EXIT_OK


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other runs off a folder, and clears away what a killed one left unfinished."""
    (folder / FOLDER).mkdir(exist_ok=True)
    with (folder / FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"--out: another run writes into {folder} now") from None
        for unfinished in folder.glob("part-*.tmp"):
            unfinished.unlink()
        yield


def _plan(given: argparse.Namespace, folder: Path, bundle: str) -> Plan:
    settings = {
        "inputs": given.inputs,
        "format": given.format,
        "chunk": given.chunk,
        "column": given.column,
        "model": given.model,
        "decoder": given.decoder,
        "beam_width": given.beam_width,
        "bundle": bundle,
        "precision": given.precision,
        "second_look": given.second_look,
        "max_image_bytes": given.max_image_bytes,
    }
    plan = read_plan(folder)
    if plan is None:
        if any(folder.glob("part-*")):
            raise ConfigurationError(f"--out: {folder} holds rows but no plan; take another folder")
        return make_plan(folder, given.inputs, settings, given.chunk, given.column)
    if not given.resume:
        raise ConfigurationError(f"--out: {folder} holds a run already; --resume goes on with it")
    for name, value in settings.items():
        if plan.settings.get(name, value) != value:  # older plans lack some
            was, now = json.dumps(plan.settings.get(name)), json.dumps(value)
            raise ConfigurationError(f"--resume: the run in {folder} has {name} {was}, this one {now}")
    return plan


def _read_here(
    plan: Plan, offsets: Sequence[int], config: ServerConfig, options: RecognitionOptions
) -> Iterator[tuple[int, int]]:
    from longhand_server.bulk_reader import ChunkReader

    reader = ChunkReader(plan, config, options)
    try:
        for offset in offsets:
            yield reader.read(offset)
    finally:
        reader.close()


class _Progress:
    """Says on standard error how far a run is, at most once a second on a terminal and every 10 s elsewhere."""

    def __init__(self, images: int, before: int, errors: int) -> None:
        self.errors = errors
        self._images, self._before, self._done = images, before, 0
        self._begun = self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._open = False  # whether the last line waits to be overwritten
        if before:
            unread = f", {errors:,} of which could not be read" if errors else ""
            tell(f"{before:,} of {images:,} images were done by an earlier run{unread}")

    def add(self, images: int, errors: int) -> None:
        """A chunk is done."""
        self._done += images
        self.errors += errors
        now = time.monotonic()
        if now - self._said >= (1 if self._terminal else 10):
            self._said = now
            done = self._before + self._done
            rate = self._done / (now - self._begun)
            minutes = round((self._images - done) / rate / 60)
            self._say(
                f"{done:,} of {self._images:,} images ({done / self._images:.1%}), {rate:.1f}/s, "
                f"{self.errors:,} not read, {minutes // 60} h {minutes % 60} min left",
                "" if self._terminal else "\n",
            )

    def end(self) -> None:
        """The run is over."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        self._say(
            f"read {self._done:,} images in {seconds:.1f} s, {self._done / seconds:.1f}/s; "
            f"{self.errors:,} could not be read",
            "\n",
        )

    def close(self) -> None:
        """Whatever is said next stands on a line of its own, also where an error or Ctrl-C has ended the run."""
        if self._open:
            self._open = False
            tell("")

    def _say(self, text: str, end: str) -> None:
        start = "\r\033[K" if self._terminal else ""
        self._open = not end
        tell(start + text, end)


if __name__ == "__main__":
    end_process(main())
