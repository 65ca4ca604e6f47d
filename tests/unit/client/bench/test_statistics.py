from __future__ import annotations

import itertools
import random
import statistics

import pytest

from longhand_client.bench import statistics as bench_statistics
from longhand_client.bench.load import Load, Sample, arrivals
from longhand_client.bench.report import make_point
from longhand_client.bench.statistics import bootstrap_ratio, highest_rate, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.5, 5.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 0.51, 3.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 1.0, 100),
        (list(range(1, 101)), 0.0, 1),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_arrivals_are_a_poisson_process() -> None:
    times = list(itertools.islice(arrivals(50.0, seed=4), 20_000))
    gaps = [late - early for early, late in itertools.pairwise(times)]
    # Exponential gaps: mean and standard deviation are both 1 / rate.
    assert statistics.fmean(gaps) == pytest.approx(0.02, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.02, rel=0.05)
    assert times == sorted(times)
    assert times[:5] == list(itertools.islice(arrivals(50.0, seed=4), 5))


def test_bootstrap_interval_agrees_with_resampling_by_hand() -> None:
    generator = random.Random(1)
    old = [generator.gauss(10, 2) for _ in range(400)]
    new = [generator.gauss(20, 2) for _ in range(400)]
    found = bootstrap_ratio(old, new, 0.5, seed=2)
    by_hand = sorted(
        percentile(generator.choices(new, k=400), 0.5) / percentile(generator.choices(old, k=400), 0.5)
        for _ in range(1000)
    )
    assert found.value == percentile(new, 0.5) / percentile(old, 0.5)
    assert found.low == pytest.approx(by_hand[25], rel=0.02)
    assert found.high == pytest.approx(by_hand[975], rel=0.02)
    assert found.low < found.value < found.high


def test_the_interval_holds_95_percent_of_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    news = iter(random.Random(2).sample(range(1000), 1000))
    monkeypatch.setattr(
        bench_statistics, "_resampled", lambda ordered, *_: 1.0 if ordered == [1.0] else next(news)
    )
    ratio = bootstrap_ratio([1.0], [500.0], 0.5)
    assert (ratio.value, ratio.low, ratio.high) == (500.0, 25, 974)


def test_the_same_sample_twice_is_no_change() -> None:
    values = [float(value) for value in range(1, 200)]
    ratio = bootstrap_ratio(values, values, 0.9)
    assert ratio.value == 1.0
    assert ratio.low < 1.0 < ratio.high


@pytest.mark.parametrize(("limit", "guess"), [(100.0, 80.0), (100.0, 300.0), (100.0, 20.0)])
def test_highest_rate_closes_in(limit: float, guess: float) -> None:
    tried: list[float] = []

    def keeps(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest_rate(keeps, guess, steps=10)
    assert found <= limit
    assert found > 0.9 * limit
    assert len(tried) == 10
    assert highest_rate(lambda rate: False, 10.0) == 0.0


def test_points_add_up_processes() -> None:
    first = Sample(duration_s=2.0, completed=4, latencies_ms=[1.0, 2.0, 3.0, 4.0], cpu_s=1.0)
    second = Sample(duration_s=2.0, completed=6, latencies_ms=[5.0, 6.0], cpu_s=0.5)
    first.stages["infer_ms"], second.stages["infer_ms"] = 40.0, 20.0
    first.errors["UNAVAILABLE"] = 2
    second.errors.update({"UNAVAILABLE": 1, "INTERNAL": 1})
    point = make_point(Load("x", rate=10.0), [first, second])
    assert (point.lines, point.lines_per_s, point.rate) == (6, 5.0, 20.0)
    assert point.latency_ms == {"p50": 3.0, "p90": 6.0, "p99": 6.0, "max": 6.0}
    assert point.stages_ms["infer_ms"] == 10.0
    assert point.errors == {"UNAVAILABLE": 3, "INTERNAL": 1}
    assert point.client_cpu == 0.5
    assert make_point(Load("x"), [Sample(duration_s=1.0)]).latency_ms == {}
