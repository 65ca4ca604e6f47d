"""The questions that the simulation answers at 1,000 replicas and up to 1 M lines a second."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.scale.fleet import Autoscaler, Fleet, Record, Scenario
from benchmarks.scale.stations import Floats

ROOT = Path(__file__).parents[3]
REPLICAS, WORKERS = 1000, 32
# Replicas are alike and every rule is a share, so a quarter of the fleet surges as the whole one does.
_SURGE_REPLICAS = 250
# A replica's first second fills its queues; it is left out.
_SECONDS, _SINCE = 4, 2
SURGE_AT_S, _SURGE_SECONDS = 20, 160


@dataclass(frozen=True)
class LoadPoint:
    """One load on one kind of fleet.

    Attributes:
        load: lines a second, as a share of what all cores can do.
        offered, answered: lines a second.
        p50_ms, p99_ms: of the answered lines.
        failed: share of the lines that were given up after four attempts.
        busiest: the busiest replica's load as a multiple of the mean.
    """

    load: float
    offered: float
    answered: float
    p50_ms: float
    p99_ms: float
    failed: float
    busiest: float


def capacity(service_s: Floats) -> float:
    """Lines a second that all cores of the fleet can do."""
    return REPLICAS * WORKERS / float(service_s.mean())


def balancers(service_s: Floats) -> dict[str, Scenario]:
    """The ways in which lines find their replica."""
    base = Scenario(
        rates=((0.0, 0.0),), seconds=_SECONDS, service_s=service_s, replicas=REPLICAS, workers=WORKERS
    )
    return {
        "round robin, 2,000 clients alike": base,
        "round robin, 2,000 clients, rates spread e^N(0, 1)": replace(base, spread=1.0),
        "200,000 streams, each on one replica": replace(base, policy="stream", clients=200_000),
        "20,000 streams": replace(base, policy="stream", clients=20_000),
        "2,000 streams": replace(base, policy="stream", clients=2_000),
    }


def sweep(scenario: Scenario, loads: tuple[float, ...]) -> list[LoadPoint]:
    """Runs a scenario under several loads."""
    points = []
    for load in loads:
        rate = load * capacity(scenario.service_s)
        record = Fleet(replace(scenario, rates=((0.0, rate),))).run()
        offered = record.per_second(record.offered, _SINCE)
        points.append(
            LoadPoint(
                load=load,
                offered=offered,
                answered=record.per_second(record.answered, _SINCE),
                p50_ms=record.percentile_ms(0.5, _SINCE),
                p99_ms=record.percentile_ms(0.99, _SINCE),
                failed=record.per_second(record.failed, _SINCE) / offered,
                busiest=float(np.mean(record.busiest[_SINCE:])),
            )
        )
    return points


def queue_bounds(service_s: Floats, bounds: tuple[int, ...], load: float) -> dict[int, LoadPoint]:
    """The same overload with other bounds of the replicas' queues."""
    base = balancers(service_s)["round robin, 2,000 clients alike"]
    # Long enough for the largest queue to fill.
    longer = replace(base, seconds=8)
    return {bound: sweep(replace(longer, max_queue=bound), (load,))[0] for bound in bounds}


def surges(service_s: Floats) -> dict[str, Record]:
    """A load that triples at once, under the shipped autoscaler, for what an operator can turn."""
    full = _SURGE_REPLICAS * WORKERS / float(service_s.mean())
    rates = ((0.0, 0.3 * full), (float(SURGE_AT_S), 0.9 * full))
    scaler = shipped_autoscaler()
    base = Scenario(
        rates=rates,
        seconds=_SURGE_SECONDS,
        service_s=service_s,
        replicas=2 * _SURGE_REPLICAS,
        first_replicas=math.ceil(0.3 * _SURGE_REPLICAS / scaler.cpu_target),
        workers=WORKERS,
        clients=500,
        resolve_s=30.0,
        autoscaler=scaler,
    )
    variants = {
        "clients ask DNS every 30 s": base,
        "every 300 s": replace(base, resolve_s=300.0),
        "never": replace(base, resolve_s=math.inf),
        "every 30 s, pods start in 60 s instead of 20 s": replace(
            base, autoscaler=replace(scaler, start_s=60.0)
        ),
        "every 30 s, autoscaler aims at 45 % CPU": replace(
            base,
            first_replicas=math.ceil(0.3 * _SURGE_REPLICAS / 0.45),
            autoscaler=replace(scaler, cpu_target=0.45),
        ),
    }
    return {name: Fleet(scenario).run() for name, scenario in variants.items()}


def shipped_autoscaler() -> Autoscaler:
    """The targets and the speed of server/deploy/kubernetes/base/autoscaler.yaml."""
    file = ROOT / "server" / "deploy" / "kubernetes" / "base" / "autoscaler.yaml"
    spec: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
    wait, cpu = spec["metrics"]
    policy = next(one for one in spec["behavior"]["scaleUp"]["policies"] if one["type"] == "Percent")
    return Autoscaler(
        wait_target_s=float(wait["pods"]["target"]["averageValue"].removesuffix("m")) / 1000,
        cpu_target=cpu["resource"]["target"]["averageUtilization"] / 100,
        growth=policy["value"] / 100,
        growth_period_s=policy["periodSeconds"],
    )
