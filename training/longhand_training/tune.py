"""Finds a bundle's decoder settings on validation lines: ``python -m longhand_training.tune BUNDLE``.

Measures the network's label priors. Then a random search over weights, bonuses and temperature, and a walk from the
best point, on every second validation line of the packs or of one's own (the others stay for evaluation), from the
settings that the bundle has; then the least beam that costs next to nothing. Writes priors and settings into
``bundle.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel
from longhand_server.bundle import ModelBundle, load_bundle, update_decoder
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidModelError
from longhand_training.command_line import HelpFormatter, add_own_lines, exit_status
from longhand_training.config import DATA, number
from longhand_training.dataset import Sample
from longhand_training.iam import IAM_VALIDATION
from longhand_training.line_sets import chosen_sets
from longhand_training.metrics import character_error_rate, expected_calibration_error
from longhand_training.outputs import LineOutputs, compute_outputs

# Range of each setting, and whether it is drawn on a logarithmic scale.
RANGES: Mapping[str, tuple[float, float, bool]] = {
    "word_weight": (0.05, 1.0, False),
    "word_bonus": (-0.5, 3.0, False),
    "unknown_word_penalty": (0.0, 6.0, False),
    "character_weight": (0.1, 1.2, False),
    "character_bonus": (0.0, 2.5, False),
    "temperature": (0.8, 2.5, True),
    "prior_weight": (0.0, 2.0, False),
}
# While the other settings are sought: quick, and near enough to WIDE.
QUICK: Mapping[str, Any] = {"beam_width": 50, "beam_threshold": -8.0, "token_threshold": -6.0}
# Pruning costs next to nothing here; narrowed afterwards.
WIDE: Mapping[str, Any] = {"beam_width": 100, "beam_threshold": -10.0, "token_threshold": -7.0}
# The shipped model is for modern English hands: their sets count most.
SET_WEIGHTS: Mapping[str, float] = {"pen": 1.0, "ink": 2.0, "hooker": 0.5, "copiste": 1.0}
# What the label priors are the mean of.
PRIOR_WEIGHTS: Mapping[str, float] = {"pen": 1.0, "ink": 2.0, "hooker": 0.1, "copiste": 0.3}
# A set without errors must not make the others count for nothing.
_LEAST_RATE = 1e-3
# Fewer lines say little of others: a setting is chosen by some ten of their errors.
_FEW_LINES = 50

# What is made least, of some settings.
Rate = Callable[[Mapping[str, Any]], float]


class Objective:
    """The weighted geometric mean of each set's CER on the tuning lines.

    So a tenth of the errors counts alike where there are few and where there are many, and no set is given up for
    another that has more of them.
    """

    def __init__(self, bundle: ModelBundle, sets: Mapping[str, LineOutputs], threads: int) -> None:
        word, character = bundle.word_model_path, bundle.character_model_path
        self.decoder = CtcBeamSearchDecoder(
            bundle.alphabet.labels,
            word_model=NgramLanguageModel(word) if word else None,
            character_model=NgramLanguageModel(character) if character else None,
            label_priors=bundle.label_priors,
            threads=threads,
        )
        self.sets = sets

    def rates(self, settings: Mapping[str, Any]) -> dict[str, float]:
        """CER of each set."""
        options = BeamSearchOptions(**settings)
        rates = {}
        for name, outputs in self.sets.items():
            results = self.decoder.decode_batch(outputs.log_probs, options)
            rates[name] = character_error_rate(outputs.texts, [result[0].text.strip() for result in results])
        return rates

    def __call__(self, settings: Mapping[str, Any]) -> float:
        """The figure that is made least."""
        rates = self.rates(settings)
        logarithms = [math.log(max(rate, _LEAST_RATE)) for rate in rates.values()]
        return math.exp(np.average(logarithms, weights=[SET_WEIGHTS.get(name, 1.0) for name in rates]))


def search(
    objective: Rate, start: Mapping[str, Any], seconds: float, seed: int = 0
) -> tuple[dict[str, Any], float]:
    """The best settings found in the time given: half of it random draws, half steps from the best point."""
    rng = np.random.default_rng(seed)
    best: dict[str, Any] = {**default_settings(), **start, **QUICK}
    least = objective(best)
    started = time.monotonic()
    while (spent := time.monotonic() - started) < seconds:
        trial = dict(best)
        if spent < seconds / 2:
            trial.update({name: _draw(rng, *spread) for name, spread in RANGES.items()})
        else:
            width = 0.25 * (1.2 - spent / seconds)
            for name in rng.choice(list(RANGES), size=int(rng.integers(1, 4)), replace=False):
                low, high, _ = RANGES[name]
                moved = trial[name] + float(rng.normal(0.0, width * (high - low)))
                trial[name] = round(min(max(moved, low), high), 3)
        rate = objective(trial)
        if rate < least:
            best, least = trial, rate
            print(f"{spent:5.0f} s  CER {100 * least:.3f} %  {_short(best)}", flush=True)
    return best, least


def narrow(objective: Rate, best: Mapping[str, Any]) -> dict[str, Any]:
    """Tightens beam and pruning from :data:`WIDE` as far as the CER stays within 0.5 % of itself."""
    best = {**best, **WIDE}
    least = objective(best)
    for name, values in (
        ("beam_width", (16, 24, 32, 50, 70)),
        ("beam_threshold", (-5.0, -6.0, -7.0, -8.0)),
        ("token_threshold", (-4.0, -5.0, -6.0)),
    ):
        for value in values:
            trial = {**best, name: value}
            rate = objective(trial)
            if rate <= least * 1.005:
                best = trial
                break
        print(f"{name}: {best[name]}", flush=True)
    return best


def mean_posteriors(sets: Mapping[str, LineOutputs]) -> tuple[float, ...]:
    """The label priors, (V,): mean posteriors over the frames of each set, weighted by :data:`PRIOR_WEIGHTS`."""
    means = [
        np.exp(np.concatenate(outputs.log_probs).astype(np.float64)).mean(axis=0) for outputs in sets.values()
    ]
    mean = np.average(means, axis=0, weights=[PRIOR_WEIGHTS.get(name, 1.0) for name in sets])
    return tuple(float(f"{prior:.4g}") for prior in mean)


def calibrate(objective: Objective, settings: dict[str, Any]) -> dict[str, Any]:
    """Chooses ``confidence_scale`` for the least expected calibration error of "the line is right"."""
    errors = {}
    for scale in (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5):
        options = BeamSearchOptions(**{**settings, "confidence_scale": scale})
        confidences, right = [], []
        for outputs in objective.sets.values():
            for result, text in zip(
                objective.decoder.decode_batch(outputs.log_probs, options), outputs.texts, strict=True
            ):
                confidences.append(result[0].confidence)
                right.append(result[0].text.strip() == text)
        errors[scale] = expected_calibration_error(confidences, right)
    scale = min(errors, key=errors.__getitem__)
    print(f"confidence_scale {scale}: ECE {errors[scale]:.3f}, unscaled {errors[1.0]:.3f}", flush=True)
    return {**settings, "confidence_scale": scale}


def default_settings() -> dict[str, Any]:
    """The decoder's own defaults of the settings that are sought."""
    defaults = dataclasses.asdict(BeamSearchOptions())
    return {name: defaults[name] for name in RANGES}


def _draw(rng: np.random.Generator, low: float, high: float, logarithmic: bool) -> float:
    if logarithmic:
        return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 3)
    return round(float(rng.uniform(low, high)), 3)


def _short(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={settings[name]}" for name in RANGES)


def tuning_lines(options: argparse.Namespace, line: LineFormat) -> dict[str, list[Sample]]:
    """Every second line of each set, ``--lines`` at most; where those are few, stderr says so.

    Raises:
        ValueError: a set cannot be read, or has only one line.
    """
    sets = chosen_sets(options, line)
    for name, samples in sets.items():
        if len(samples) < 2:
            raise ValueError(f"{name}: got {len(samples)} lines to tune on, need at least 2")
    sets = {name: samples[1::2][: options.lines] for name, samples in sets.items()}
    if (count := sum(map(len, sets.values()))) < _FEW_LINES:
        print(
            f"{count} lines are few to tune on: settings that fit them may read others worse; compare on the others "
            "(evaluate --every 2)",
            file=sys.stderr,
        )
    return sets


@exit_status("tune", ValueError, RuntimeError, OSError, InvalidModelError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of the model, which gets the settings")
    parser.add_argument(
        "--data",
        type=Path,
        help=f"folder of the packs: their validation lines (default: {DATA} where nothing is named)",
    )
    add_own_lines(parser, IAM_VALIDATION, hold_out=True)
    parser.add_argument("--lines", type=number(int, 1), default=150, help="tuning lines of each set")
    parser.add_argument("--minutes", type=number(float, 0), default=5.0, help="time for the search")
    parser.add_argument("--threads", type=number(int, 1), default=1, help="of the beam search")
    options = parser.parse_args()
    if options.data is None and not options.folder and options.iam is None:
        options.data = DATA
    bundle = load_bundle(options.bundle)
    sets = {}
    for name, samples in tuning_lines(options, bundle.line).items():
        sets[name] = compute_outputs(bundle, samples)
        print(f"{name}: {len(sets[name].texts)} lines", flush=True)
    bundle = dataclasses.replace(bundle, label_priors=mean_posteriors(sets))
    objective = Objective(bundle, sets, options.threads)
    start = dict(bundle.decoder)  # also what is not sought: the settings are tuned for it
    best, _ = search(objective, start, 60 * options.minutes)
    best = calibrate(objective, narrow(objective, best))
    update_decoder(options.bundle, best, bundle.label_priors)
    print("written: " + ", ".join(f"{name} {value}" for name, value in best.items()))
    for name, rate in objective.rates(best).items():
        print(f"{name}: CER {100 * rate:.2f} % on the tuning lines")


if __name__ == "__main__":
    sys.exit(main())
