"""`python clients/benchmark.py`: measures a running server, or one that it starts."""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from longhand_client.bench.lines import draw_lines, load_images
from longhand_client.bench.load import Load, Sample, measure
from longhand_client.bench.report import (
    Point,
    make_point,
    print_comparison,
    print_table,
    read_points,
    to_json,
)
from longhand_client.bench.statistics import highest_rate
from longhand_client.client import RecognizerClient
from longhand_client.command.arguments import add_credentials, credentials
from longhand_client.connection import DEFAULT_ADDRESS
from longhand_client.errors import LonghandError, ServerUnavailableError
from longhand_client.local_server import LocalServer
from longhand_client.options import RecognitionOptions

EXIT_OK, EXIT_FAILED, EXIT_NO_SERVER = 0, 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark that the command line describes.

    Args:
        arguments: the command line without the program's name; None = the process's own.

    Returns:
        The exit code: 0, 1 (failed, or nothing was read), 2 (usage), 3 (no server).
    """
    usage = _parser()
    options = usage.parse_args(arguments)
    try:
        options.secrets = credentials(options)
    except ValueError as error:
        usage.error(str(error))
    except OSError as error:
        usage.error(f"{error.filename}: {error.strerror}")
    try:
        with ExitStack() as resources:
            if options.local:
                options.address = resources.enter_context(LocalServer()).address
            return _run(options)
    except ServerUnavailableError as error:
        print(f"benchmark: {error}; start one with `make serve`, or use --local", file=sys.stderr)
        return EXIT_NO_SERVER
    except LonghandError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return EXIT_FAILED


def _run(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("rich") is None:
        # Better now than after minutes of measuring.
        raise LonghandError("the benchmark's table needs rich: pip install '.[client]' in Longhand's folder")
    earlier = None if options.compare is None else read_points(Path(options.compare))
    images = load_images(options.images) if options.images else _drawn(options)
    tls, token = options.secrets
    with RecognizerClient(options.address, tls=tls, token=token) as client:
        model = client.model()
    print(
        f"server {options.address}, model {model.name} {model.version} on {model.device}, {len(images)} images"
    )
    base = Load(
        address=options.address,
        tls=tls,
        token=token,
        call=options.call,
        batch_size=options.batch_size,
        duration_s=options.duration,
        warm_up_s=options.warm_up,
        seed=options.seed,
        options=RecognitionOptions(decoder=options.decoder),
    )
    loads = [replace(base, rate=rate) for rate in options.rate or []]
    if not loads and options.slo_ms is None:
        loads = [replace(base, concurrency=concurrency) for concurrency in options.concurrency]
    points = [_point(load, images, options.processes) for load in loads]
    if options.slo_ms is not None:
        points += _find_rate(base, images, options)
    print_table(points, sys.stdout)
    if options.slo_ms is not None:
        best = max((point.rate for point in points if _keeps(point, options.slo_ms)), default=0.0)
        print(f"highest rate with p99 <= {options.slo_ms:g} ms and no errors: {best:.1f} lines/s")
    if earlier is not None:
        print_comparison(earlier, points, sys.stdout)
    if options.json is not None:
        facts = {"model": model.name, "model_version": model.version, "device": model.device}
        Path(options.json).write_text(to_json(points, facts), encoding="utf-8")
    if options.plots is not None:
        from longhand_client.bench.plots import draw_plots

        for file in draw_plots(points, Path(options.plots)):
            print(f"drawn: {file}")
    return EXIT_OK if any(point.lines for point in points) else EXIT_FAILED


def _drawn(options: argparse.Namespace) -> list[bytes]:
    return draw_lines(64, median_width=options.width, spread=options.width_spread, seed=options.seed)


def _point(load: Load, images: list[bytes], processes: int) -> Point:
    """Measures one load, shared out among the processes."""
    shares = [
        replace(
            load,
            rate=load.rate / processes,
            concurrency=max(load.concurrency // processes, 1),
            seed=load.seed + number,
        )
        for number in range(processes)
    ]
    samples: list[Sample]
    if processes == 1:
        samples = [measure(shares[0], images)]
    else:
        context = multiprocessing.get_context("spawn")  # gRPC must not be forked
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            samples = list(pool.map(measure, shares, [images] * processes))
    return make_point(shares[0], samples)


def _keeps(point: Point, slo_ms: float) -> bool:
    return bool(point.lines) and not point.errors and point.latency_ms["p99"] <= slo_ms


def _find_rate(base: Load, images: list[bytes], options: argparse.Namespace) -> list[Point]:
    """Closes in on the highest rate that keeps the goal; returns every point measured on the way."""
    points = [_point(replace(base, concurrency=8), images, options.processes)]

    def keeps(rate: float) -> bool:
        points.append(_point(replace(base, rate=rate), images, options.processes))
        return _keeps(points[-1], options.slo_ms)

    # A closed loop shows what the server can do at most; four fifths of that is a good first guess.
    highest_rate(keeps, max(0.8 * points[0].lines_per_s, 0.1))
    return points


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Measures a Longhand server: lines a second, latency, and where the time goes.",
        epilog="exit codes: 0 measured, 1 failed, 2 usage, 3 no server",
    )
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="images, folders or patterns (default: drawn lines)")
    add("--address", default=DEFAULT_ADDRESS, metavar="HOST:PORT", help="default: %(default)s")
    add("--local", action="store_true", help="start a server for this run")
    add_credentials(parser)
    add("--call", choices=("unary", "batch", "stream"), default="unary", help="default: %(default)s")
    add("--batch-size", type=int, default=16, metavar="N", help="lines in a batch (default: %(default)s)")
    add("--concurrency", type=_counts, default=[1, 2, 4, 8, 16], metavar="N,N", help="closed loop")
    add("--rate", type=_rates, metavar="R,R", help="open loop: lines a second, Poisson arrivals")
    add("--slo-ms", type=float, metavar="MS", help="find the highest rate whose p99 stays within this")
    add("--duration", type=float, default=10.0, metavar="S", help="each measurement (default: %(default)s)")
    add("--warm-up", type=float, default=2.0, metavar="S", help="before each one (default: %(default)s)")
    add("--processes", type=int, default=1, metavar="N", help="client processes (default: %(default)s)")
    add("--decoder", choices=("greedy", "beam"), help="default: the model's choice")
    add("--width", type=int, default=900, metavar="PX", help="median width of drawn lines")
    add("--width-spread", type=float, default=0.4, metavar="S", help="spread of the logarithm of the width")
    add("--seed", type=int, default=0, help="of arrival times, images and their order")
    add("--json", metavar="FILE", help="write everything that was measured")
    add("--compare", metavar="FILE", help="an earlier --json file: print ratios with 95 %% intervals")
    add("--plots", metavar="FOLDER", help="draw latency against load, and a histogram")
    return parser


def _counts(text: str) -> list[int]:
    return [int(value) for value in _rates(text)]


def _rates(text: str) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"got {text}, need numbers above 0")
    return values


if __name__ == "__main__":
    sys.exit(main())
