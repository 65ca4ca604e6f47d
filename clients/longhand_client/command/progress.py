"""A progress bar on a terminal: how many, how fast, how long still."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TextIO

_BAR = 20  # characters


class Progress:
    """Writes one line that overwrites itself.

    Args:
        stream: usually standard error.
        total: how many there are; None = unknown.
        enabled: whether to write at all: into a file or a pipe nothing should go.
    """

    INTERVAL_S = 0.2

    def __init__(self, stream: TextIO, total: int | None, *, enabled: bool) -> None:
        self._stream = stream
        self._total = total
        self._enabled = enabled
        self._started = time.monotonic()
        self._shown = 0.0
        self._done = 0

    def step(self) -> None:
        """Counts one image."""
        self._done += 1
        now = time.monotonic()
        if self._enabled and now - self._shown >= self.INTERVAL_S:
            self._shown = now
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be overwritten
            line = self.line(now - self._started)
            if len(line) > width:
                line = line.rpartition("] ")[2]  # the figures say more than the bar
            self._write(f"\r\x1b[K{line[:width]}")

    def line(self, elapsed_s: float) -> str:
        """The text of the line after so many seconds."""
        rate = self._done / max(elapsed_s, 1e-9)
        if self._total is None:
            return f"{self._done} lines, {rate:.1f} lines/s"
        share = 100 * self._done // max(self._total, 1)
        left_s = round((self._total - self._done) / rate) if self._done else 0
        filled = _BAR * self._done // max(self._total, 1)
        bar = "#" * filled + "." * (_BAR - filled)
        return f"[{bar}] {self._done}/{self._total} ({share} %), {rate:.1f} lines/s, {_clock(left_s)} left"

    def clear(self) -> None:
        """Removes the line, so that something else can be printed."""
        if self._enabled:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed ends no run
            self._stream.write(text)
            self._stream.flush()


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
