"""Error rates of recognised text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein distance: least insertions, deletions and substitutions that turn ``a`` into ``b``.

    Bits of two numbers say where a column of the table goes up or down by one (Hyyrö, 2003, after Myers, 1999).

    Args:
        a: characters, words or anything else that can be hashed.
        b: of the same kind.
    """
    if not a:
        return len(b)
    places: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    every, last, distance = (1 << len(a)) - 1, 1 << (len(a) - 1), len(a)
    up, down = every, 0
    for item in b:
        equal = places.get(item, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up, right_down = down | (every & ~(diagonal | up)), up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = (right_up << 1) | 1, right_down << 1
        up, down = (right_down | ~(diagonal | right_up)) & every, right_up & diagonal & every
    return distance


def _distances(a: Sequence[object], b: Sequence[object]) -> list[list[int]]:
    """[i][j]: the distance of the first i of ``a`` from the first j of ``b``."""
    previous = list(range(len(b) + 1))
    rows = [previous]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (x != y)))
        rows.append(row)
        previous = row
    return rows


def alignment(reference: str, text: str) -> list[tuple[str, str]]:
    """A cheapest alignment: pairs of equal or exchanged characters, "" on one side where one is missing."""
    rows = _distances(reference, text)
    pairs = []
    i, j = len(reference), len(text)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (reference[i - 1] != text[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], text[j]))
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            pairs.append((reference[i], ""))
        else:
            j -= 1
            pairs.append(("", text[j]))
    return pairs[::-1]


@dataclass(frozen=True)
class ErrorRates:
    """Micro-averaged error rates over a set of lines, as fractions.

    Attributes:
        cer: character errors over reference characters; spaces, case and punctuation count.
        wer: word errors over reference words, words being what stands between spaces.
        line_accuracy: part of the lines without any error.
        lines: number of lines.
    """

    cer: float
    wer: float
    line_accuracy: float
    lines: int


def _errors_and_totals(
    references: Sequence[str], texts: Sequence[str], split: Callable[[str], Sequence[str]]
) -> tuple[list[int], list[int]]:
    errors, totals = [], []
    for reference, text in zip(references, texts, strict=True):
        errors.append(edit_distance(split(reference), split(text)))
        totals.append(len(split(reference)))
    return errors, totals


def character_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Sum of the edit distances over the sum of the reference lengths, in characters."""
    errors, totals = _errors_and_totals(references, texts, list)
    return sum(errors) / max(sum(totals), 1)


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """As :func:`character_error_rate` over words (split at spaces; punctuation and case kept)."""
    errors, totals = _errors_and_totals(references, texts, str.split)
    return sum(errors) / max(sum(totals), 1)


def error_rates(references: Sequence[str], texts: Sequence[str]) -> ErrorRates:
    """All error rates of a set of lines.

    Raises:
        ValueError: the two differ in length, or there is no line.
    """
    if not references:
        raise ValueError("error rates of no lines at all")
    exact = sum(r == t for r, t in zip(references, texts, strict=True))
    return ErrorRates(
        character_error_rate(references, texts),
        word_error_rate(references, texts),
        exact / len(references),
        len(references),
    )


def bootstrap_interval(
    references: Sequence[str], texts: Sequence[str], draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the CER, lines being drawn with replacement."""
    errors, totals = (np.array(part) for part in _errors_and_totals(references, texts, list))
    picks = np.random.default_rng(seed).integers(len(errors), size=(draws, len(errors)))
    rates = errors[picks].sum(1) / np.maximum(totals[picks].sum(1), 1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)


def expected_calibration_error(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 10
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al., 2017).

    Raises:
        ValueError: there is no line.
    """
    confidence, right = np.asarray(confidences, float), np.asarray(correct, float)
    if not len(confidence):
        raise ValueError("calibration of no lines at all")
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[which == i].mean() - right[which == i].mean()) * (which == i).mean()
        for i in range(bins)
        if (which == i).any()
    ]
    return float(sum(gaps))
