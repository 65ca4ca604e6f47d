"""Processes that train one network together, each on lines of its own; gradients are averaged step by step.

On a CPU two processes of one thread do more than one process of two threads: threads wait for each other in every
layer, processes once a step.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed

from longhand_training.stopping import STOP_SIGNALS

# The others wait while the first process validates.
_PATIENCE = timedelta(minutes=30)


class ProcessLostError(RuntimeError):
    """Another process, which trains along or makes lines, has ended."""


class Replicas:
    """This process's place among those that train together; by itself when ``count`` is 1.

    Args:
        rank: 0 for the process that validates, saves and prints.
        count: how many there are.
        meeting_point: file through which they find each other; not there before the first starts.
        others: those that this one has started; it waits for none that has ended.

    Raises:
        ProcessLostError: another one ended before they had found each other.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        meeting_point: Path | None = None,
        others: Sequence[subprocess.Popen[bytes]] = (),
    ) -> None:
        self.rank, self.count = rank, count
        if count > 1:
            assert meeting_point is not None
            store = distributed.FileStore(str(meeting_point), count)  # type: ignore[attr-defined]
            # PyTorch would wait with all its patience for one that died while it was importing.
            store.set(f"here/{rank}", "")
            while others and not store.check([f"here/{other}" for other in range(count)]):
                if any(other.poll() is not None for other in others):
                    raise ProcessLostError("another process was lost")
                time.sleep(0.05)
            try:
                distributed.init_process_group(
                    "gloo",
                    store=store,
                    rank=rank,
                    world_size=count,
                    timeout=_PATIENCE,
                )
            except RuntimeError as error:
                raise ProcessLostError("another process was lost") from error

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over all processes, the same in every one.

        Raises:
            ProcessLostError: another one has ended.
        """
        if self.count == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64)
        _add_up(total)
        return (total / self.count).tolist()

    def average_gradients(self, parameters: Iterable[Tensor], loss: Tensor) -> Tensor:
        """Replaces every gradient by its mean over all processes; gives the mean loss.

        Raises:
            ProcessLostError: another one has ended.
        """
        if self.count == 1:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten().cpu() for g in gradients), loss.cpu().flatten()])
        _add_up(flat)
        flat /= self.count
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view(gradient.shape))
            at += gradient.numel()
        return flat[-1].to(loss.device)


def _add_up(tensor: Tensor) -> None:
    """Replaces the values by their sums over all processes."""
    try:
        distributed.all_reduce(tensor)
    except RuntimeError as error:
        raise ProcessLostError("another process was lost") from error


@contextmanager
def others_started(
    count: int, module: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts processes 1 to ``count`` - 1 of a command, which it yields; ends them when the block ends.

    They ignore Ctrl-C and SIGTERM, which reach every process of a terminal's or a cluster's job: one that died of
    it would take away what the first process needs to end its step.
    """
    with _stop_signals_ignored():  # what a process ignores, those that it starts ignore, too
        others = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments, "--rank", str(rank)],
                env=dict(environment),
                stdout=subprocess.DEVNULL,
            )
            for rank in range(1, count)
        ]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.wait()


@contextmanager
def _stop_signals_ignored() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
