"""The beam search in plain Python, without the decoder's shortcuts: all prefixes are scored anew in every frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Prefix = tuple[int, ...]


def _log_add(*values: float) -> float:
    largest = max(values)
    if largest == -math.inf:
        return largest
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def search(
    log_probs: NDArray[np.float64],
    labels: Sequence[str],
    models: Callable[[Prefix], float],
    *,
    beam_width: int,
    beam_threshold: float,
    token_threshold: float,
    credit: Callable[[Prefix], float] = lambda prefix: 0.0,
) -> dict[Prefix, float]:
    """log P(prefix | x) of the prefixes in the beam at the end.

    A frame in which no label but the blank reaches the threshold (the best label always does) changes no beam.

    Args:
        log_probs: (T, V).
        labels: the blank is "".
        models: what the language models add to the score of a prefix within a line.
        beam_width: prefixes kept after a frame.
        beam_threshold: relative to the best prefix.
        token_threshold: of the labels that may begin a new prefix.
        credit: what of a prefix's score does not count where it is the best one (`beam_threshold`).
    """
    blank = list(labels).index("")
    beam: dict[Prefix, tuple[float, float]] = {(): (0.0, -math.inf)}
    for row in log_probs:
        kept = {prefix: _stay(beam, prefix, row, blank) for prefix in beam}
        tokens = [
            v for v in range(len(row)) if v != blank and (row[v] >= token_threshold or row[v] == row.max())
        ]
        if tokens:
            for prefix in beam:
                for token in tokens:
                    longer = (*prefix, token)
                    if longer not in beam:
                        kept[longer] = (-math.inf, _arrival(beam, prefix, token) + row[token])
            kept = _cut(kept, models, credit, beam_width, beam_threshold)
        beam = kept
    return {prefix: _log_add(*scores) for prefix, scores in beam.items()}


def _stay(
    beam: dict[Prefix, tuple[float, float]], prefix: Prefix, row: NDArray[np.float64], blank: int
) -> tuple[float, float]:
    before_blank, before_label = beam[prefix]
    if not prefix:
        return before_blank + row[blank], -math.inf
    arrival = _arrival(beam, prefix[:-1], prefix[-1]) if prefix[:-1] in beam else -math.inf
    return _log_add(before_blank, before_label) + row[blank], _log_add(before_label, arrival) + row[
        prefix[-1]
    ]


def _arrival(beam: dict[Prefix, tuple[float, float]], prefix: Prefix, token: int) -> float:
    with_blank, with_label = beam[prefix]
    return with_blank if prefix[-1:] == (token,) else _log_add(with_blank, with_label)


def _cut(
    kept: dict[Prefix, tuple[float, float]],
    models: Callable[[Prefix], float],
    credit: Callable[[Prefix], float],
    width: int,
    threshold: float,
) -> dict[Prefix, tuple[float, float]]:
    totals = {prefix: _log_add(*scores) + models(prefix) for prefix, scores in kept.items()}
    least = max(total - credit(prefix) for prefix, total in totals.items()) + threshold
    best = sorted((p for p in totals if totals[p] >= least and totals[p] > -math.inf), key=totals.__getitem__)
    return {prefix: kept[prefix] for prefix in best[-width:]}
