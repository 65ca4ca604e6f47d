"""The simulation of scale against queueing theory, and against rules that hold whatever the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.scale.fleet import Autoscaler, Fleet, Scenario
from benchmarks.scale.stations import BatchStations, Floats, SerialStations


def _poisson(rate: float, count: int, seed: int = 3) -> Floats:
    return np.asarray(np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count)))


def _waits(workers: int, load: float, service: Floats, replicas: int = 20) -> float:
    """The mean wait of many lines at replicas that are alike."""
    count = len(service) // replicas
    stations = SerialStations(replicas, workers, 100_000)
    replica = np.repeat(np.arange(replicas), count)
    arrival = np.concatenate([_poisson(load * workers, count, seed) for seed in range(replicas)])
    start, _ = stations.run(replica, arrival, service[: len(replica)])
    return float((start - arrival).mean())


def test_one_worker_waits_as_pollaczek_and_khinchine_say() -> None:
    for load in (0.5, 0.8):
        constant = _waits(1, load, np.ones(200_000))
        assert constant == pytest.approx(load / (2 * (1 - load)), rel=0.05)
        exponential = _waits(1, load, np.random.default_rng(1).exponential(1, 200_000))
        assert exponential == pytest.approx(load / (1 - load), rel=0.05)


def test_several_workers_wait_as_erlang_says() -> None:
    workers, load = 4, 0.8
    offered = workers * load
    terms = [offered**k / math.factorial(k) for k in range(workers + 1)]
    waiting = terms[-1] / (1 - load) / (sum(terms[:-1]) + terms[-1] / (1 - load))
    expected = waiting / (workers * (1 - load))
    assert _waits(workers, load, np.random.default_rng(2).exponential(1, 400_000)) == pytest.approx(
        expected, rel=0.06
    )


def test_a_full_queue_refuses_as_often_as_theory_says() -> None:
    load, room = 1.2, 4  # one in work, four waiting: M/M/1/5
    count = 100_000
    _, end = SerialStations(1, 1, room).run(
        np.zeros(count, np.int64), _poisson(load, count), np.random.default_rng(4).exponential(1, count)
    )
    expected = (1 - load) * load ** (room + 1) / (1 - load ** (room + 2))
    assert np.isnan(end).mean() == pytest.approx(expected, rel=0.05)


def test_a_run_in_pieces_is_the_run_in_one() -> None:
    random = np.random.default_rng(5)
    replica, arrival, service = random.integers(0, 3, 3000), _poisson(30, 3000), random.exponential(0.1, 3000)
    whole = SerialStations(3, 2, 5).run(replica, arrival, service)
    pieces = SerialStations(3, 2, 5)
    parts = [
        pieces.run(replica[i : i + 7], arrival[i : i + 7], service[i : i + 7]) for i in range(0, 3000, 7)
    ]
    for at in (0, 1):
        np.testing.assert_array_equal(whole[at], np.concatenate([part[at] for part in parts]))


def test_batches_take_what_waits_in_one_lane() -> None:
    # 1.0 starts at once; meanwhile two short lines (one lane) and a long one wait; a batch costs its longest.
    arrival = np.array([0.0, 0.1, 0.2, 0.3])
    service = np.array([1.0, 0.50, 0.9, 0.51])
    start, end = BatchStations(1, 8, 10, share=0.5, seconds_a_pixel=1e-4).run(
        np.zeros(4, np.int64), arrival, service
    )
    np.testing.assert_allclose(start, [0.0, 1.0, 1.765, 1.0])
    np.testing.assert_allclose(end, [1.0, 1.765, 2.665, 1.765])


def test_batches_are_bounded_and_so_is_their_queue() -> None:
    start, end = BatchStations(1, 2, 3, share=1.0, seconds_a_pixel=1e-4).run(
        np.zeros(5, np.int64), np.array([0.0, 0.1, 0.2, 0.3, 0.4]), np.ones(5)
    )
    np.testing.assert_allclose(start, [0.0, 1.0, 1.0, 3.0, math.nan])
    np.testing.assert_allclose(end, [1.0, 3.0, 3.0, 4.0, math.nan])


def _scenario(**changes: object) -> Scenario:
    defaults: dict[str, object] = {
        "rates": ((0.0, 2000.0),),
        "seconds": 4,
        "service_s": np.array([0.03, 0.05]),
        "replicas": 50,
        "workers": 2,
        "clients": 40,
    }
    return Scenario(**(defaults | changes))  # type: ignore[arg-type]


def test_a_fleet_answers_what_it_can_and_loses_nothing() -> None:
    record = Fleet(_scenario()).run()
    assert sum(record.offered) == sum(record.answered)
    assert sum(record.failed) == 0
    assert record.per_second(record.offered) == pytest.approx(2000, rel=0.05)
    assert record.busiest[-1] < 1.4
    over = Fleet(_scenario(rates=((0.0, 5000.0),), max_queue=8, seconds=8)).run()
    assert over.per_second(over.answered, 2) == pytest.approx(2500, rel=0.02)
    assert over.per_second(over.failed, 3) == pytest.approx(2500, rel=0.1)


def test_one_seed_gives_one_result() -> None:
    first, second = (Fleet(_scenario()).run() for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(first.latencies_s), np.concatenate(second.latencies_s))
    other = Fleet(_scenario(seed=1)).run()
    assert other.offered != first.offered


def test_streams_overload_single_replicas_and_round_robin_does_not() -> None:
    pinned = Fleet(_scenario(policy="stream")).run()
    assert pinned.busiest[-1] > 1.5
    assert pinned.percentile_ms(0.99) > 2 * Fleet(_scenario()).run().percentile_ms(0.99)


def test_the_autoscaler_adds_pods_late_and_clients_find_them_when_they_ask() -> None:
    scaler = Autoscaler(sync_s=5.0, window_s=5.0, start_s=3.0, growth_period_s=5.0)
    rates = ((0.0, 300.0), (5.0, 1500.0))
    known, unknown = (
        Fleet(
            _scenario(rates=rates, seconds=30, first_replicas=10, autoscaler=scaler, resolve_s=resolve_s)
        ).run()
        for resolve_s in (2.0, math.inf)
    )
    assert known.replicas[5] == 10
    assert known.replicas[-1] >= 1500 * 0.04 / 2
    assert known.per_second(known.failed, 25) == 0
    assert unknown.replicas[-1] >= known.replicas[5]
    assert unknown.per_second(unknown.failed, 25) > 500
