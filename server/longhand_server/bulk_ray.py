"""Bulk runs on Ray Data: the chunks of a plan spread over the readers of a cluster."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from longhand_server.bulk_plan import Plan
from longhand_server.bulk_reader import ChunkReader
from longhand_server.config import ServerConfig
from longhand_server.errors import ConfigurationError, LonghandError
from longhand_server.options import RecognitionOptions

# Tasks that Ray makes of a plan at most; each has one chunk or more.
_MOST_TASKS = 10_000
# Only places in the plan and counts go through it.
_OBJECT_STORE_BYTES = 100 << 20
_START_ATTEMPTS = 3
_CONNECT_S = 10.0


class _Reader:
    """What Ray runs in each of its worker processes."""

    def __init__(self, plan: Plan, config: ServerConfig, options: RecognitionOptions) -> None:
        self._reader = ChunkReader(plan, config, options)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        images, errors = self._reader.read(int(row["offset"]))
        return {"images": images, "errors": errors}


def read_on_ray(
    plan: Plan,
    offsets: Iterable[int],
    config: ServerConfig,
    options: RecognitionOptions,
    address: str,
    readers: int,
) -> Iterator[tuple[int, int]]:
    """Reads chunks on a cluster.

    Args:
        plan: The run; its folder must be the same on every machine.
        offsets: Places of the chunks in the plan.
        config: Model, device, threads of one reader.
        options: How to read.
        address: Of the cluster's head, ``"auto"``, or ``"local"`` for one that lives as long as this.
        readers: Processes with a model each; 0 = as many as there are CPUs, or GPUs.

    Yields:
        Images, and images that were not read, of every chunk that is done.

    Raises:
        ConfigurationError: Ray is not installed, or there is no cluster.
        LonghandError: The rows cannot be written, or a reader finds no model.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigurationError(
            f"--address needs Ray Data: pip install '.[bulk]' in Longhand's folder ({error})"
        ) from error
    _join(ray, address)
    try:
        yield from _run(ray, plan, list(offsets), config, options, readers)
    except ray.exceptions.RayError as error:
        # A reader that dies is started again, by Ray; one that fails at its work ends the run.
        raise LonghandError(f"a reader failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()


def _join(ray: Any, address: str) -> None:
    _check_reachable(address)
    own: dict[str, Any] = {}
    if address == "local":
        own = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    for attempt in itertools.count(1):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:  # Ray raises all kinds, among them Exception itself
            # A cluster of one's own gets 30 s to start, which a busy machine may exceed.
            if not own or attempt == _START_ATTEMPTS:
                text = str(error).splitlines()[0]
                hint = "" if own else " (one with tokens needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)"
                raise ConfigurationError(f"--address: no Ray cluster at {address!r}: {text}{hint}") from error
            ray.shutdown()
        else:
            return


def _check_reachable(address: str) -> None:
    """Asks by a connection whether anybody listens there, since Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        if address in ("local", "auto"):
            return
        raise ConfigurationError(f"--address: got {address!r}, need HOST:PORT, auto or local")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"--address: no Ray cluster at {address!r}: {error}") from error


def _run(
    ray: Any, plan: Plan, offsets: list[int], config: ServerConfig, options: RecognitionOptions, readers: int
) -> Iterator[tuple[int, int]]:
    on_gpu = config.runtime.device.startswith("cuda")
    threads = config.runtime.threads or 1
    if not readers:
        total = ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1.0)
        readers = max(int(total if on_gpu else total / threads), 1)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Ray would otherwise have every reader add up all its pages each second, for a figure that nobody sees.
    context.memory_usage_poll_interval_s = None
    # Ray would otherwise keep a share of the CPUs for reading its input, which is nothing here.
    context.execution_options.preserve_order = False
    chunks = ray.data.from_items(
        [{"offset": offset} for offset in offsets], override_num_blocks=min(len(offsets), _MOST_TASKS)
    )
    done = chunks.map(
        _Reader,
        fn_constructor_args=(replace(plan, folder=plan.folder.resolve()), config, options),
        concurrency=min(readers, len(offsets)),
        num_cpus=threads,
        num_gpus=1 if on_gpu else None,
    )
    for row in done.iter_rows():
        yield int(row["images"]), int(row["errors"])
