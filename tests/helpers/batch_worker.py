"""What a batcher of integers runs its batches with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from longhand_server.config import BatchingConfig


class Worker:
    """Runs batches when the test says so; remembers them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.seconds = seconds
        self.poison: set[int] = set()

    async def run(self, items: Sequence[int], hand_over: Callable[[], None]) -> list[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if bad := self.poison.intersection(items):
            raise ValueError(f"poisoned by {bad}")
        return [item * 10 for item in items]


def config(**changes: float) -> BatchingConfig:
    """Batches of up to four, and a queue that is long enough."""
    return BatchingConfig(**{"max_batch_size": 4, "max_queue": 1000, **changes})  # type: ignore[arg-type]
