"""What the decoder does at its limits, and how far its confidences can be believed."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from calibration import calibration_error
from lines import Lines
from memory import measure, random_labels, random_line
from numpy.typing import NDArray
from peers import Settings

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel


def _decode_each(
    decoder: CtcBeamSearchDecoder, lines: Sequence[NDArray[np.float32]], options: BeamSearchOptions
) -> None:
    for line in lines:
        decoder.decode(line, options)


def _read_each(
    decoder: CtcBeamSearchDecoder, lines: Sequence[NDArray[np.float32]], options: BeamSearchOptions
) -> None:
    for line in lines:
        decoder.decode_text(line, options)


def cpu_milliseconds(work: Callable[[], object], repeats: int) -> float:
    """CPU time of one call, the least of three rounds."""
    rounds = []
    for _ in range(3):
        begin = time.process_time()
        for _ in range(repeats):
            work()
        rounds.append((time.process_time() - begin) / repeats * 1000.0)
    return min(rounds)


def extremes(lines: Lines, models: argparse.Namespace, best: Settings) -> dict[str, float]:
    """The other targets: wide pruning, greedy, batches, long lines."""
    words, characters = NgramLanguageModel(models.word_model), NgramLanguageModel(models.character_model)
    values: dict[str, Any] = {**best, "beam_width": 50}
    both = BeamSearchOptions(**values)
    merged = dataclasses.replace(both, merge_histories=True)
    decoder = CtcBeamSearchDecoder(lines.labels, word_model=words, character_model=characters)
    pair = CtcBeamSearchDecoder(lines.labels, word_model=words, character_model=characters, threads=2)
    wide = dataclasses.replace(both, beam_threshold=-20.0, token_threshold=-10.0)
    flat = dataclasses.replace(wide, temperature=1.5)
    every = lines.log_probs[:200]
    count = len(every)
    out = {"frames a line": lines.mean_frames, "labels": float(len(lines.labels))}
    kinds = {
        "both models, beam 50": both,
        "both models, beam 50, merge_histories": merged,
        "both models, -20 / -10": wide,
        "both models, -20 / -10, temperature 1.5": flat,
    }
    for name, options in kinds.items():
        out[name + ", ms"] = cpu_milliseconds(partial(_decode_each, decoder, every, options), 1) / count
        out[name + ", text alone, ms"] = (
            cpu_milliseconds(partial(_read_each, decoder, every, options), 1) / count
        )
    out["greedy, ms"] = cpu_milliseconds(lambda: [decoder.decode_greedy(x) for x in every], 1) / count
    out |= batch_scaling({1: decoder, 2: pair}, every * 2, both)
    logits = random_line(10000, 200)
    long_decoder = CtcBeamSearchDecoder(random_labels(200), options=BeamSearchOptions(input="logits"))
    for frames in (2500, 5000, 10000):
        part = np.ascontiguousarray(logits[:frames])
        out[f"{frames} frames x 200 labels, ms"] = cpu_milliseconds(partial(long_decoder.decode, part), 1)
    return out | measure(models.lines, models.word_model, models.character_model)


def batch_scaling(
    decoders: dict[int, CtcBeamSearchDecoder],
    lines: Sequence[NDArray[np.float32]],
    options: BeamSearchOptions,
) -> dict[str, float]:
    """Wall and CPU time of a batch for each number of threads, the best of ten rounds taken by turns."""
    wall = dict.fromkeys(decoders, np.inf)
    cpu = dict.fromkeys(decoders, np.inf)
    for _ in range(10):
        for threads, decoder in decoders.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            decoder.decode_batch(lines, options)
            wall[threads] = min(wall[threads], (time.perf_counter() - begin) * 1000.0 / len(lines))
            cpu[threads] = min(cpu[threads], (time.process_time() - begin_cpu) * 1000.0 / len(lines))
    out = {f"batch, {n} threads, wall ms a line": wall[n] for n in decoders}
    out |= {f"batch, {n} threads, CPU ms a line": cpu[n] for n in decoders}
    return out | {"batch, speed of 2 threads / speed of 1": wall[1] / wall[2]}


def calibrate(
    development: Lines, lines: Lines, models: argparse.Namespace, best: Settings
) -> dict[str, float]:
    """Calibration error of word confidences, as they come and with the scale that development lines suggest."""
    decoder = CtcBeamSearchDecoder(
        lines.labels,
        word_model=NgramLanguageModel(models.word_model),
        character_model=NgramLanguageModel(models.character_model),
    )
    values: dict[str, Any] = {**best, "beam_width": 50}
    base = BeamSearchOptions(**values)
    scales = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]
    errors = {
        s: calibration_error(decoder, development, dataclasses.replace(base, confidence_scale=s))
        for s in scales
    }
    scale = min(errors, key=errors.__getitem__)
    tuned = dataclasses.replace(base, confidence_scale=scale)
    merged = dataclasses.replace(tuned, merge_histories=True)
    return {
        "confidence_scale": scale,
        "ECE before, %": calibration_error(decoder, lines, base),
        "ECE after, %": calibration_error(decoder, lines, tuned),
        "ECE after, with merge_histories, %": calibration_error(decoder, lines, merged),
    }
