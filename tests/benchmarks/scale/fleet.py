"""A fleet under load: clients, the network, replicas, and an autoscaler, in steps of a few milliseconds.

Within a step everything is exact; between steps go only refused lines that are tried again (never sooner than
a step) and what the autoscaler decides. Arrivals are Poisson for each client.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from benchmarks.scale.stations import Floats, Integers, SerialStations

STEP_S = 0.05
# The client's own policy: four attempts, pauses of 0.1 s that double.
_ATTEMPTS, _FIRST_PAUSE_S = 4, 0.1
_KEPT = 20_000


@dataclass(frozen=True)
class Autoscaler:
    """Kubernetes' horizontal autoscaler with our two metrics; defaults are those of autoscaler.yaml.

    Attributes:
        wait_target_s: mean queue wait.
        cpu_target: share of the cores.
        growth: at most this share more in `growth_period_s`.
        sync_s: seconds between decisions.
        window_s: seconds over which the metrics are means.
        start_s: seconds until a new pod serves.
    """

    wait_target_s: float = 0.1
    cpu_target: float = 0.7
    growth: float = 1.0
    growth_period_s: float = 30.0
    sync_s: float = 15.0
    window_s: float = 60.0
    start_s: float = 20.0


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        rates: lines a second, from each of these moments on: (seconds, rate), in order.
        seconds: how long.
        replicas: how many at most.
        first_replicas: how many at the start; 0 = all.
        workers: cores of a replica.
        max_queue: lines that wait in a replica.
        service_s: measured service times that are drawn from, seconds.
        clients: client processes.
        spread: standard deviation of the logarithm of the clients' rates; 0 = all alike.
        policy: whether each line of a client goes to the next replica, or all to the one that holds its stream.
        reopen_s: seconds after which a client opens its stream again.
        resolve_s: seconds after which a client asks DNS again, and so learns of new replicas.
        network_s: median one-way delay; log-normal.
        network_spread: standard deviation of its logarithm.
        autoscaler: None = the replicas stay as they are.
        seed: of the random numbers.
    """

    rates: tuple[tuple[float, float], ...]
    seconds: float
    service_s: Floats
    replicas: int = 1000
    first_replicas: int = 0
    workers: int = 32
    max_queue: int = 256
    clients: int = 2000
    spread: float = 0.0
    policy: Literal["round_robin", "stream"] = "round_robin"
    reopen_s: float = math.inf
    resolve_s: float = math.inf
    network_s: float = 0.00025
    network_spread: float = 0.5
    autoscaler: Autoscaler | None = None
    seed: int = 0


@dataclass
class Record:
    """What came of it, for each simulated second.

    Attributes:
        offered, answered, failed: lines.
        latencies_s: of lines that were taken in in the second; at most 20,000 of them, drawn at random.
        replicas: how many served.
        busiest: the busiest replica's share of all lines, times the number of replicas.
    """

    offered: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    latencies_s: list[Floats] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    busiest: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float, since: int = 0) -> float:
        """A percentile of the latencies from that second on, ms."""
        return float(np.quantile(np.concatenate(self.latencies_s[since:]), share)) * 1000

    def per_second(self, values: list[int], since: int = 0) -> float:
        """The mean of a count from that second on."""
        return float(np.mean(values[since:]))


@dataclass
class _Lines:
    """Lines on their way: from which client, when they left, when they leave again, which attempt, how long."""

    client: Integers
    left: Floats
    sent: Floats
    attempt: Integers
    service: Floats

    def __getitem__(self, chosen: object) -> _Lines:
        return _Lines(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def joined(self, other: _Lines) -> _Lines:
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return _Lines(*(np.concatenate(pair) for pair in pairs))


class Fleet:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = np.random.default_rng(scenario.seed)
        self._stations = SerialStations(scenario.replicas, scenario.workers, scenario.max_queue)
        self._serving = scenario.first_replicas or scenario.replicas
        self._starting: list[tuple[float, int]] = []
        weights = np.exp(self._random.normal(0, scenario.spread, scenario.clients))
        self._weights = weights / weights.sum()
        self._known = np.full(scenario.clients, self._serving)
        self._turn = self._random.integers(0, self._serving, scenario.clients)
        self._home = self._turn.copy()
        self._reopen_at = self._first_times(scenario.reopen_s)
        self._resolve_at = self._first_times(scenario.resolve_s)
        self._again: _Lines | None = None
        # Of each step: work brought to the replicas (s), sum of the waits (s), lines answered.
        self._history: list[tuple[float, float, int]] = []
        self._sizes: list[tuple[float, int]] = [(0.0, self._serving)]

    def run(self) -> Record:
        """Simulates it all."""
        record = Record()
        steps = round(1 / STEP_S)
        for second in range(math.ceil(self._scenario.seconds)):
            offered = answered = failed = 0
            latencies, counts = [], np.zeros(self._scenario.replicas)
            for step in range(steps):
                now = second + step * STEP_S
                self._renew(now)
                lines, new = self._lines(now)
                offered += new
                replica = self._route(lines.client)
                counts += np.bincount(replica, minlength=len(counts))
                done, lost = self._serve(lines, replica)
                answered += len(done)
                failed += lost
                latencies.append(done)
            record.offered.append(offered)
            record.answered.append(answered)
            record.failed.append(failed)
            record.latencies_s.append(self._sample(np.concatenate(latencies)))
            record.replicas.append(self._serving)
            record.busiest.append(float(counts.max() / max(counts.sum(), 1) * self._serving))
        return record

    def _sample(self, latencies: Floats) -> Floats:
        if len(latencies) <= _KEPT:
            return latencies
        return self._random.choice(latencies, _KEPT, replace=False)

    def _first_times(self, period_s: float) -> Floats:
        if math.isinf(period_s):
            return np.full(self._scenario.clients, math.inf)
        return self._random.uniform(0, period_s, self._scenario.clients)

    def _renew(self, now: float) -> None:
        """What happens from time to time: pods come up, clients resolve and open streams again, pods are ordered."""
        while self._starting and self._starting[0][0] <= now:
            self._serving += self._starting.pop(0)[1]
        due = self._resolve_at <= now
        self._known[due] = self._serving
        self._resolve_at[due] += self._scenario.resolve_s
        due = self._reopen_at <= now
        self._home[due] = self._random.integers(0, self._known[due])
        self._reopen_at[due] += self._scenario.reopen_s
        scaler = self._scenario.autoscaler
        if scaler is not None and now > 0 and now % scaler.sync_s < STEP_S:
            self._scale(scaler, now)

    def _lines(self, now: float) -> tuple[_Lines, int]:
        """The step's new lines and those that are tried again in it, and how many are new."""
        rate = [rate for since, rate in self._scenario.rates if since <= now][-1]
        counts = self._random.poisson(rate * STEP_S * self._weights)
        client = np.repeat(np.arange(len(counts)), counts)
        left = now + self._random.uniform(0, STEP_S, len(client))
        service = self._random.choice(self._scenario.service_s, len(client))
        lines = _Lines(client, left, left.copy(), np.ones(len(client), np.int64), service)
        new = len(client)
        if self._again is not None:
            due = self._again.sent < now + STEP_S
            lines, self._again = lines.joined(self._again[due]), self._again[~due]
        return lines, new

    def _route(self, client: Integers) -> Integers:
        if self._scenario.policy == "stream":
            return self._home[client]
        # The n-th line of a client in this step goes n replicas on; whose line comes first does not matter.
        order = np.argsort(client, kind="stable")
        ordered = client[order]
        counts = np.bincount(client, minlength=self._scenario.clients)
        nth = np.arange(len(client)) - (np.cumsum(counts) - counts)[ordered]
        replica = np.empty(len(client), np.int64)
        replica[order] = (self._turn[ordered] + nth) % self._known[ordered]
        self._turn += counts
        return replica

    def _serve(self, lines: _Lines, replica: Integers) -> tuple[Floats, int]:
        """Latencies of the lines that are answered, and how many failed for good; the rest is tried again."""
        delays = self._random.lognormal(
            math.log(self._scenario.network_s), self._scenario.network_spread, (2, len(replica))
        )
        # The network's delay is added to the answer: the order in which lines reach a replica is that of sending.
        start, end = self._stations.run(replica, lines.sent, lines.service)
        answered = ~np.isnan(end)
        waited = start[answered] - lines.sent[answered]
        self._history.append((float(lines.service[answered].sum()), float(waited.sum()), int(answered.sum())))
        refused = lines[~answered]
        last = refused.attempt >= _ATTEMPTS
        again = refused[~last]
        again.sent += (
            _FIRST_PAUSE_S * 2.0 ** (again.attempt - 1) * self._random.uniform(0.8, 1.2, len(again.sent))
        )
        again.attempt += 1
        self._again = again if self._again is None else self._again.joined(again)
        return (end - lines.left)[answered] + delays[:, answered].sum(axis=0), int(last.sum())

    def _scale(self, scaler: Autoscaler, now: float) -> None:
        recent = np.array(self._history[-round(scaler.window_s / STEP_S) :])
        work, waited, lines = recent.sum(axis=0)
        busy = work / (len(recent) * STEP_S * self._serving * self._scenario.workers)
        ratio = max(min(busy, 1.0) / scaler.cpu_target, waited / max(lines, 1) / scaler.wait_target_s)
        ordered = self._serving + sum(count for _, count in self._starting)
        if ratio <= 1.1:  # within the tolerance, or a scale-down, which waits five minutes
            return
        before = [size for at, size in self._sizes if at <= now - scaler.growth_period_s] or [
            self._sizes[0][1]
        ]
        most = max(math.ceil(before[-1] * (1 + scaler.growth)), before[-1] + 4)
        wanted = min(math.ceil(self._serving * ratio), most, self._scenario.replicas)
        if wanted > ordered:
            self._starting.append((now + scaler.start_s, wanted - ordered))
            self._sizes.append((now, wanted))
