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
from longhand_client.bench.load import Load, measure
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
from longhand_client.command.arguments import (
    add_credentials,
    connects,
    count,
    credentials,
    not_negative,
    positive,
)
from longhand_client.command.outputs import printable
from longhand_client.command.program import EXIT_FAILED, EXIT_OK, errors_of_usage, run_program
from longhand_client.command.standard_streams import allow_every_character, open_closed_streams
from longhand_client.connection import DEFAULT_ADDRESS, Connection
from longhand_client.errors import LonghandError
from longhand_client.local_server import LocalServer
from longhand_client.options import RecognitionOptions

CONCURRENCIES = (1, 2, 4, 8, 16)
WIDTH, WIDTH_SPREAD = 900, 0.4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark that the command line describes.

    Args:
        arguments: the command line without the program's name; None = the process's own.

    Returns:
        The exit code: 0, 1 (failed, or nothing was read), 2 (usage), 3 (no server), 130 (stopped by Ctrl-C).
    """
    open_closed_streams()
    allow_every_character()
    return run_program(
        "benchmark", lambda: _run(_parsed(arguments)), "start one with `make serve`, or measure with --local"
    )


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    usage = _parser()
    options = usage.parse_args(arguments)
    _check(usage, options)
    options.address = options.address or DEFAULT_ADDRESS
    with errors_of_usage(usage):
        options.secrets = credentials(options)
        Connection(address=options.address).target()
    return options


def _check(usage: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses what would have no effect."""
    if options.local and connects(options):
        usage.error("--local starts a server of its own: leave out --address, --token-file and --tls")
    loads = {"--concurrency": options.concurrency, "--rate": options.rate, "--slo-ms": options.slo_ms}
    given = [name for name, value in loads.items() if value is not None]
    if len(given) > 1:
        usage.error(f"{' and '.join(given)}: take one of them")
    if options.call != "batch" and options.batch_size is not None:
        usage.error("--batch-size needs --call batch")
    if options.images and (options.width is not None or options.width_spread is not None):
        usage.error("--width and --width-spread are those of drawn lines: leave out the images")


def _run(options: argparse.Namespace) -> int:
    _check_places(options)
    earlier = None if options.compare is None else read_points(Path(options.compare))
    images = load_images(options.images) if options.images else _drawn(options)
    with ExitStack() as resources:
        if options.local:
            options.address = resources.enter_context(LocalServer()).address
        tls, token = options.secrets
        with RecognizerClient(options.address, tls=tls, token=token) as client:
            model = client.model()
        print(
            printable(
                f"server {options.address}, model {model.name} {model.version} on {model.device}, "
                f"{len(images)} images"
            )
        )
        points = _measure(images, options)
    if options.json is not None:
        # First of all: whoever reads what is printed may have left.
        facts = {"model": model.name, "model_version": model.version, "device": model.device}
        Path(options.json).write_text(to_json(points, facts), encoding="utf-8")
    print_table(points, sys.stdout)
    if options.slo_ms is not None:
        best = max((point.rate for point in points if _keeps(point, options.slo_ms)), default=0.0)
        print(f"highest rate with p99 <= {options.slo_ms:g} ms and no errors: {best:.1f} lines/s")
    if earlier is not None:
        print_comparison(earlier, points, sys.stdout)
    if options.plots is not None:
        from longhand_client.bench.plots import draw_plots

        for file in draw_plots(points, Path(options.plots)):
            print(f"drawn: {file}")
    return EXIT_OK if any(point.lines for point in points) else EXIT_FAILED


def _check_places(options: argparse.Namespace) -> None:
    """Says what would fail after minutes of measuring."""
    if importlib.util.find_spec("rich") is None:
        raise LonghandError("the benchmark's table needs rich: pip install '.[client]' in Longhand's folder")
    if options.plots is not None:
        if importlib.util.find_spec("matplotlib") is None:
            raise LonghandError("--plots needs Matplotlib: pip install '.[bench]' in Longhand's folder")
        Path(options.plots).mkdir(parents=True, exist_ok=True)
    if options.json is not None:
        with Path(options.json).open("a"):
            pass


def _measure(images: list[bytes], options: argparse.Namespace) -> list[Point]:
    """Measures every load that was asked for."""
    tls, token = options.secrets
    base = Load(
        address=options.address,
        tls=tls,
        token=token,
        call=options.call,
        batch_size=options.batch_size or Load.batch_size,
        duration_s=options.duration,
        warm_up_s=options.warm_up,
        seed=options.seed,
        options=RecognitionOptions(decoder=options.decoder),
    )
    if options.slo_ms is not None:
        return _find_rate(base, images, options)
    if options.rate is not None:
        loads = [replace(base, rate=rate) for rate in options.rate]
    else:
        # Each process has one line on its way at least: of several small numbers the same load would come.
        numbers = (max(number, options.processes) for number in options.concurrency or CONCURRENCIES)
        shares = dict.fromkeys(number // options.processes for number in numbers)
        loads = [replace(base, concurrency=share * options.processes) for share in shares]
    return [_point(load, images, options.processes) for load in loads]


def _drawn(options: argparse.Namespace) -> list[bytes]:
    spread = WIDTH_SPREAD if options.width_spread is None else options.width_spread
    return draw_lines(64, median_width=options.width or WIDTH, spread=spread, seed=options.seed)


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
    if processes == 1:
        return make_point(shares[0], [measure(shares[0], images)])
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
        usage="benchmark.py [--help] [options] [IMAGE ...]",
        description="Measures a Longhand server: lines a second, latency, and where the time goes.",
        epilog="exit codes: 0 measured, 1 failed, 2 usage, 3 no server, 130 stopped by Ctrl-C",
    )
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="images, folders or patterns (default: drawn lines)")
    add("--address", metavar="HOST:PORT", help=f"where the server is (default: {DEFAULT_ADDRESS})")
    add("--local", action="store_true", help="start a server for this run")
    add_credentials(parser)
    add(
        "--call",
        choices=("unary", "batch", "stream"),
        default="unary",
        help="kind of call (default: %(default)s)",
    )
    add("--batch-size", type=count, metavar="N", help=f"lines in a batch (default: {Load.batch_size})")
    shown = ",".join(map(str, CONCURRENCIES))
    add(
        "--concurrency",
        type=_counts,
        metavar="N,N",
        help=f"closed loop: lines on their way at once (default: {shown})",
    )
    add(
        "--rate",
        type=_rates,
        metavar="R,R",
        help="open loop: lines a second, which arrive at random (Poisson)",
    )
    add("--slo-ms", type=positive, metavar="MS", help="find the highest rate whose p99 stays within this")
    add(
        "--duration",
        type=positive,
        default=10.0,
        metavar="S",
        help="seconds of each measurement (default: %(default)s)",
    )
    add(
        "--warm-up",
        type=not_negative,
        default=2.0,
        metavar="S",
        help="seconds of load before each (default: %(default)s)",
    )
    add("--processes", type=count, default=1, metavar="N", help="client processes (default: %(default)s)")
    add("--decoder", choices=("greedy", "beam"), help="default: the model's choice")
    add("--width", type=count, metavar="PX", help=f"median width of drawn lines (default: {WIDTH})")
    add(
        "--width-spread",
        type=not_negative,
        metavar="S",
        help=f"spread of the logarithm of the width (default: {WIDTH_SPREAD})",
    )
    add("--seed", type=int, default=0, help="of the random numbers: arrivals, drawn lines, their order")
    add("--json", metavar="FILE", help="write everything that was measured")
    add("--compare", metavar="FILE", help="an earlier --json file: print ratios with 95 %% intervals")
    add("--plots", metavar="FOLDER", help="draw latency against load, and a histogram, as PNG files")
    return parser


def _counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def _rates(text: str) -> list[float]:
    return [positive(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
