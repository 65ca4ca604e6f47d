"""What the client costs: images per second of its own CPU time, against a server that answers at once.

python tests/benchmarks/client/bench_client.py [IMAGES]
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.web_process import free_port
from longhand_client import AsyncRecognizerClient, LonghandError, RecognizerClient
from longhand_client.bench.load import Load, measure

IMAGE = bytes(20_000)
COMMAND_LINE = Path(__file__).parents[3] / "clients" / "cli.py"


def images(count: int) -> Iterator[bytes]:
    """The same 20 kB again and again."""
    return (IMAGE for _ in range(count))


def stream_sync(address: str, count: int) -> None:
    """The synchronous stream."""
    with RecognizerClient(address) as client:
        for outcome in client.recognize_stream(images(count)):
            outcome.result()


def stream_async(address: str, count: int) -> None:
    """The asynchronous stream."""

    async def read() -> None:
        async with AsyncRecognizerClient(address) as client:
            async for outcome in client.recognize_stream(images(count)):
                outcome.result()

    asyncio.run(read())


def unary(address: str, count: int) -> None:
    """One call after the other."""
    with RecognizerClient(address) as client:
        for image in images(count // 5):
            client.recognize(image)


def report(name: str, run: Callable[[str, int], None], address: str, count: int) -> None:
    """Runs it once and prints the rates."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(address, count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = count // 5 if run is unary else count
    print(f"{name:24}{done / cpu:8.0f} images per CPU second, {done / wall:8.0f} per second")


def command_line(address: str, count: int) -> None:
    """Reads `count` files and prints the rates and the memory."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            (Path(folder) / f"{number:06}.png").write_bytes(IMAGE)
        command = [
            sys.executable,
            str(COMMAND_LINE),
            folder,
            "--address",
            address,
            "--tsv",
            "--out",
            "/dev/null",
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"command line, {count:6} files  {count / cpu:8.0f} images per CPU second, {after.ru_maxrss / 1024:.0f} MiB"
    )


def main() -> None:
    """Measures everything once."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    port = free_port()
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("no_op_server.py")), str(port)])
    address = f"127.0.0.1:{port}"
    try:
        with RecognizerClient(address) as client:
            for _ in range(50):
                try:
                    client.model()
                    break
                except LonghandError:
                    time.sleep(0.1)
        report("stream, synchronous", stream_sync, address, count)
        report("stream, asyncio", stream_async, address, count)
        report("unary, synchronous", unary, address, count)
        for files in (count // 10, count):
            command_line(address, files)
        for call in ("unary", "stream"):
            sample = measure(Load(address, call=call, rate=500.0, duration_s=6.0), [IMAGE])
            share = 100 * sample.cpu_s / sample.duration_s
            print(
                f"benchmark at 500 lines/s, {call}: {share:.1f} % of a core, {sample.completed / 6:.0f} lines/s"
            )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
