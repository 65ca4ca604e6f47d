"""What a replica does with its lines, simulated for all replicas of a fleet at once.

Both kinds follow the server's own rules: a queue that refuses beyond its bound, first come first served (one
priority, callers that send alike), and a worker or a batch that starts as soon as one is free.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Stations(Protocol):
    """The replicas of a fleet."""

    def run(self, replica: Integers, arrival: Floats, service: Floats) -> tuple[Floats, Floats]:
        """Takes lines in; see :class:`SerialStations`."""


class SerialStations:
    """Replicas whose workers take one line at a time (the server on a CPU).

    A line's start follows from its arrival alone (G/G/c queue, the recursion of Kiefer and Wolfowitz 1955), so
    nothing is approximated and no event list is needed: step k handles the k-th line of every replica.

    Args:
        replicas: How many.
        workers: Lines that one of them works on at a time.
        max_queue: Lines that may wait in one of them.
    """

    def __init__(self, replicas: int, workers: int, max_queue: int) -> None:
        self._free_at = np.zeros((replicas, workers))
        # Starts of the last max_queue lines taken in. They rise, so the queue is full while the oldest of them lies
        # ahead.
        self._starts = np.full((replicas, max_queue), -math.inf)
        self._taken = np.zeros(replicas, np.int64)
        self._max_queue = max_queue

    def run(self, replica: Integers, arrival: Floats, service: Floats) -> tuple[Floats, Floats]:
        """Takes lines in.

        Args:
            replica: Where each line goes.
            arrival: When, in seconds; not before what an earlier call brought to the same replica.
            service: Seconds of a worker that each line takes.

        Returns:
            When each line starts and ends; NaN where it is refused.
        """
        start, end = np.full(len(arrival), math.nan), np.full(len(arrival), math.nan)
        for lines in _by_rank(replica, arrival):
            where, when = replica[lines], arrival[lines]
            slot = self._taken[where] % self._max_queue
            room = self._starts[where, slot] <= when
            lines, where, when, slot = lines[room], where[room], when[room], slot[room]
            worker = self._free_at[where].argmin(axis=1)
            start[lines] = begun = np.maximum(when, self._free_at[where, worker])
            end[lines] = self._free_at[where, worker] = begun + service[lines]
            self._starts[where, slot] = begun
            self._taken[where] += 1
        return start, end


def _by_rank(replica: Integers, arrival: Floats) -> list[Integers]:
    """Indices of the first line of every replica, of the second, and so on."""
    order = np.lexsort((arrival, replica))
    ordered = replica[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if len(order) else np.zeros(0, bool)
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    turns = np.argsort(rank, kind="stable")
    return [np.asarray(part) for part in np.split(order[turns], np.cumsum(np.bincount(rank))[:-1])]


@dataclass
class _Batcher:
    """One replica with one network; lanes as in the server's DynamicBatcher."""

    lanes: dict[int, deque[tuple[float, int, float]]] = field(default_factory=dict)
    waiting: int = 0
    free_at: float = 0.0


class BatchStations:
    """Replicas whose network takes batches of lines of like size (the server on a GPU, or told to).

    A batch takes as long as its longest line alone, to which the others are padded, and ``share`` of that for each
    further line.

    Args:
        replicas: How many.
        max_batch_size: Lines in a batch.
        max_queue: Lines that may wait in one of them.
        share: What a further line adds.
        seconds_a_pixel: Of the network; tells a line's width, and so its lane, from its service time.
    """

    _BUCKET_RATIO = 1.25

    def __init__(
        self, replicas: int, max_batch_size: int, max_queue: int, share: float, seconds_a_pixel: float
    ) -> None:
        self._replicas = [_Batcher() for _ in range(replicas)]
        self._max_batch_size, self._max_queue, self._share = max_batch_size, max_queue, share
        self._seconds_a_pixel = seconds_a_pixel

    def run(self, replica: Integers, arrival: Floats, service: Floats) -> tuple[Floats, Floats]:
        """Takes lines in and finishes them all; see :class:`SerialStations`."""
        start, end = np.full(len(arrival), math.nan), np.full(len(arrival), math.nan)
        for number in np.argsort(arrival, kind="stable"):
            one, now = self._replicas[replica[number]], arrival[number]
            self._advance(one, now, start, end)
            if one.waiting < self._max_queue:
                lane = int(math.log(service[number] / self._seconds_a_pixel, self._BUCKET_RATIO))
                one.lanes.setdefault(lane, deque()).append((now, number, service[number]))
                one.waiting += 1
        for one in self._replicas:
            self._advance(one, math.inf, start, end)
        return start, end

    def _advance(self, one: _Batcher, now: float, start: Floats, end: Floats) -> None:
        """Runs the batches that start before a moment."""
        while one.waiting:
            lane = min((queue for queue in one.lanes.values() if queue), key=lambda queue: queue[0])
            begun = max(one.free_at, lane[0][0])
            if begun >= now:
                return
            batch = [
                lane.popleft() for _ in range(min(len(lane), self._max_batch_size)) if lane[0][0] <= begun
            ]
            one.waiting -= len(batch)
            longest = max(service for _, _, service in batch)
            one.free_at = begun + longest * (1 + self._share * (len(batch) - 1))
            for _, number, _ in batch:
                start[number], end[number] = begun, one.free_at
