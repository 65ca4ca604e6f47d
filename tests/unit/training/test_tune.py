"""The search for decoder settings, on objectives whose best point is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_training.outputs import LineOutputs
from longhand_training.tune import QUICK, RANGES, WIDE, Objective, mean_posteriors, narrow, search


class Bowl:
    """Least at the given settings."""

    def __init__(self, **least: float) -> None:
        self.least = least

    def __call__(self, settings: Mapping[str, Any]) -> float:
        return 0.05 + sum((float(settings[name]) - value) ** 2 for name, value in self.least.items())


def test_the_search_goes_from_where_it_starts_to_the_least() -> None:
    start = {"word_weight": 0.9, "character_weight": 0.2}
    best, least = search(Bowl(word_weight=0.3, character_weight=0.7), start, seconds=0.5)
    assert best["word_weight"] == pytest.approx(0.3, abs=0.1)
    assert best["character_weight"] == pytest.approx(0.7, abs=0.1)
    assert least == pytest.approx(0.05, abs=0.02)
    assert all(low <= best[name] <= high for name, (low, high, _) in RANGES.items())
    assert {name: best[name] for name in QUICK} == QUICK


def test_what_is_made_least_is_the_geometric_mean_of_the_sets() -> None:
    class Known(Objective):
        def __init__(self, **rates: float) -> None:
            self.known = rates

        def rates(self, settings: Mapping[str, Any]) -> dict[str, float]:
            return self.known

    assert Known(pen=0.01, ink=0.02)({}) == pytest.approx((0.01 * 0.02**2) ** (1 / 3))
    # A tenth less of a set with few errors weighs as much as a tenth less of one with many.
    assert Known(pen=0.009, copiste=0.1)({}) == pytest.approx(Known(pen=0.01, copiste=0.09)({}))
    assert Known(pen=0.0, copiste=0.1)({}) > 0


def test_the_priors_are_means_over_frames_and_sets() -> None:
    def outputs(*frames: list[float]) -> LineOutputs:
        return LineOutputs(
            ("", "a"), [np.log(np.array([frame], np.float32)) for frame in frames], ["a"] * len(frames)
        )

    priors = mean_posteriors({"one": outputs([0.9, 0.1], [0.5, 0.5]), "other": outputs([0.1, 0.9])})
    assert priors == pytest.approx((0.4, 0.6), abs=1e-3)
    weighted = mean_posteriors({"pen": outputs([0.9, 0.1]), "ink": outputs([0.3, 0.7])})  # ink counts twice
    assert weighted == pytest.approx((0.5, 0.5), abs=1e-3)


def test_without_time_the_settings_stay() -> None:
    start = {name: (low + high) / 2 for name, (low, high, _) in RANGES.items()}
    best, _ = search(Bowl(word_weight=0.3), start, seconds=0.0)
    assert {name: best[name] for name in start} == start


def test_the_beam_is_the_least_that_costs_next_to_nothing() -> None:
    def objective(settings: Mapping[str, Any]) -> float:
        too_small: tuple[bool, ...] = (settings["beam_width"] < 50, settings["beam_threshold"] > -7)
        return 0.05 + 0.001 * sum(too_small)

    best = narrow(objective, {"word_weight": 0.3, **QUICK})
    assert best == {
        "word_weight": 0.3,
        "beam_width": 50,
        "beam_threshold": -7.0,
        "token_threshold": -4.0,
    }


def test_where_every_narrowing_costs_the_beam_stays_wide() -> None:
    wide = dict(WIDE)
    assert narrow(lambda settings: 0.05 if settings == wide else 0.06, wide) == wide
