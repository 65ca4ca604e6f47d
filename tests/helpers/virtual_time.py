"""An event loop whose clock stands still until the test moves it."""

from __future__ import annotations

import asyncio


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready, and what is due by its own clock."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0

    def time(self) -> float:
        """The clock of this loop, seconds."""
        return self._seconds

    def settle(self) -> None:
        """Runs until nothing is left to do at this time."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]
                return

    def advance(self, seconds: float) -> None:
        """Moves the clock on and runs what is due by then."""
        self._seconds += seconds
        self.settle()
