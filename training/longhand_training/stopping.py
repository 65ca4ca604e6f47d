"""Ctrl-C and SIGTERM (Slurm, Docker, Kubernetes) end a run between two steps, so that it is saved whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ended the work of :meth:`StopSignals.interruptible`."""


class StopSignals:
    """Notes the first signal that asks the process to stop.

    Attributes:
        received: its number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._interruptible = False

    def install(self) -> None:
        """Takes the signals from now on; from the main thread only."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM; 0 for none."""
        return 0 if self.received is None else 128 + self.received

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that leaves nothing half done, so that it need not be waited for.

        Raises:
            Stopped: a signal came, before or within the block.
        """
        if self.received is not None:
            raise Stopped
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A second signal does nothing: some senders send two, and the first one's checkpoint is being written.
        if self.received is None:
            self.received = number
            if self._interruptible:
                raise Stopped


def heed_parent_only(worker: int) -> None:
    """Has a loader's worker end when the process that it works for tells it to, and at no other signal to stop.

    Those reach every process of a terminal's or a cluster's job, and a step that loses its workers cannot end.
    """
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def wait() -> None:
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
