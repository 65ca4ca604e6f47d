"""Percentiles, a comparison that knows its uncertainty, and the highest rate that keeps a promise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

BOOTSTRAP_ROUNDS = 1000


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank).

    Args:
        values: in any order; not empty.
        share: from 0 to 1.

    Returns:
        One of the values.
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True)
class Ratio:
    """How a figure has changed.

    Attributes:
        value: new divided by old.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def bootstrap_ratio(old: Sequence[float], new: Sequence[float], share: float, seed: int = 0) -> Ratio:
    """The ratio of a percentile of two samples with a bootstrap interval (Efron 1979).

    Args:
        old: values measured before.
        new: values measured now.
        share: which percentile, from 0 to 1.
        seed: of the resampling.

    Returns:
        The ratio and its 95 % percentile interval. Values that follow each other are taken as independent,
        which makes the interval somewhat too narrow.
    """
    generator = random.Random(seed)
    olds, news = sorted(old), sorted(new)
    ratios = sorted(
        _resampled(news, share, generator) / max(_resampled(olds, share, generator), 1e-12)
        for _ in range(BOOTSTRAP_ROUNDS)
    )
    return Ratio(
        percentile(news, share) / max(percentile(olds, share), 1e-12),
        ratios[round(0.025 * (len(ratios) - 1))],
        ratios[round(0.975 * (len(ratios) - 1))],
    )


def _resampled(ordered: Sequence[float], share: float, generator: random.Random) -> float:
    """The nearest-rank percentile of one resample (with replacement) of an ordered sample.

    The k-th smallest of n uniform numbers is distributed as Beta(k, n - k + 1); the resample's k-th smallest
    value is the sample's value at that place.
    """
    count = len(ordered)
    rank = max(math.ceil(share * count), 1)
    place = generator.betavariate(rank, count - rank + 1)
    return ordered[min(int(place * count), count - 1)]


def highest_rate(keeps: Callable[[float], bool], first_guess: float, *, steps: int = 6) -> float:
    """The highest rate that keeps a promise, found by doubling and halving.

    Args:
        keeps: measures one rate.
        first_guess: where to start; above 0.
        steps: how often to halve the interval.

    Returns:
        The highest rate that was measured and kept it; 0 where none did.
    """
    good, bad = 0.0, math.inf
    rate = first_guess
    for _ in range(steps):
        if keeps(rate):
            good = rate
        else:
            bad = rate
        rate = good * 1.5 if math.isinf(bad) else (good + bad) / 2
    return good
