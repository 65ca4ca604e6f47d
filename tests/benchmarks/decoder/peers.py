"""Each decoder behind one interface: a grid to tune, and a function from log-probabilities to text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel, build_ctcdecoder

Decode = Callable[[NDArray[np.float32]], str]
Settings = dict[str, float]


@dataclass(frozen=True)
class Contender:
    """A decoder with one set of models.

    Attributes:
        name: in the table.
        models: which language models it uses, in words.
        grid: values to try for each setting.
        start: settings to begin with.
        build: makes a new decoder with some settings.
        widths: beam widths for the curve of error against time.
    """

    name: str
    models: str
    grid: dict[str, list[float]]
    start: Settings
    build: Callable[[Settings], Decode]
    widths: list[int] = field(default_factory=list)

    def trials(self, budget: int) -> Iterator[Settings]:
        """`budget` settings to try: the start, then points of the grid in a random order."""
        points = [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]
        random.Random(1).shuffle(points)
        yield self.start
        for point in points[: budget - 1]:
            yield {**self.start, **point}


def ours(
    name: str,
    labels: list[str],
    words: NgramLanguageModel | None,
    characters: NgramLanguageModel | None,
    grid: dict[str, list[float]],
    start: Settings,
    **fixed: Any,
) -> Contender:
    """`longhand_decoder` with the models given."""

    def build(settings: Settings) -> Decode:
        decoder = CtcBeamSearchDecoder(labels, word_model=words, character_model=characters)
        values = {**fixed, **settings, "beam_width": int(settings["beam_width"])}
        options = BeamSearchOptions(**values)
        return lambda line: decoder.decode_text(line, options)

    used = [model for model, there in (("word", words), ("character", characters)) if there]
    return Contender(name, " + ".join(used) or "none", grid, start, build, [5, 10, 20, 50, 100, 200])


def ours_as_pyctcdecode(labels: list[str], word_path: Path, unigrams: list[str]) -> Contender:
    """`longhand_decoder.build_ctcdecoder` at pyctcdecode's settings."""

    def build(settings: Settings) -> Decode:
        decoder = build_ctcdecoder(
            labels, word_path, unigrams, alpha=settings["alpha"], beta=settings["beta"]
        )
        return lambda line: decoder.decode(line, beam_width=int(settings["beam_width"]))

    grid = {"alpha": [0.2, 0.3, 0.4, 0.5, 0.6, 0.8], "beta": [0.5, 1.5, 2.5, 4.0]}
    start = {"alpha": 0.5, "beta": 1.5, "beam_width": 100}
    return Contender("longhand_decoder as pyctcdecode", "word", grid, start, build, [10, 25, 50, 100])


def pyctcdecode_peer(labels: list[str], word_path: Path, unigrams: list[str]) -> Contender:
    """pyctcdecode with a word model."""
    import pyctcdecode

    decoder = pyctcdecode.build_ctcdecoder(labels, str(word_path), unigrams)

    def build(settings: Settings) -> Decode:
        def decode(line: NDArray[np.float32]) -> str:
            decoder.reset_params(alpha=settings["alpha"], beta=settings["beta"])
            return str(decoder.decode(line, beam_width=int(settings["beam_width"])))

        return decode

    grid = {"alpha": [0.2, 0.3, 0.4, 0.5, 0.6, 0.8], "beta": [0.5, 1.5, 2.5, 4.0]}
    start = {"alpha": 0.5, "beta": 1.5, "beam_width": 100}
    return Contender("pyctcdecode 0.5.0", "word", grid, start, build, [10, 25, 100])


def _flashlight_text(tokens: list[int], labels: list[str]) -> str:
    joined = [label for label, _ in itertools.groupby(tokens)]
    return "".join(labels[label] for label in joined).strip()


def flashlight_characters(labels: list[str], character_path: Path) -> Contender:
    """flashlight-text's lexicon-free decoder with a character model."""
    from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    names = ["\u2581" if label == " " else label or "<blank>" for label in labels]
    model = KenLM(str(character_path), Dictionary(names))
    space, blank = labels.index(" "), labels.index("")

    def build(settings: Settings) -> Decode:
        options = LexiconFreeDecoderOptions(
            int(settings["beam_width"]),
            25,
            settings["threshold"],
            settings["lm_weight"],
            0.0,
            True,
            CriterionType.CTC,
        )
        decoder = LexiconFreeDecoder(options, model, space, blank, [])

        def decode(line: NDArray[np.float32]) -> str:
            best = decoder.decode(line.ctypes.data, *line.shape)[0]
            return _flashlight_text([t for t in best.tokens if 0 <= t < len(labels)], labels)

        return decode

    grid = {"lm_weight": [0.3, 0.5, 0.7, 0.9, 1.1, 1.4, 1.8, 2.2], "threshold": [10.0, 25.0]}
    start = {"lm_weight": 0.7, "threshold": 10.0, "beam_width": 50}
    return Contender("flashlight-text 0.0.7, lexicon-free", "character", grid, start, build, [10, 25, 50])


def flashlight_lexicon(labels: list[str], word_path: Path, unigrams: list[str]) -> Contender:
    """flashlight-text's lexicon decoder with a word model: it reads words of the lexicon only."""
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconDecoder,
        LexiconDecoderOptions,
        SmearingMode,
        Trie,
    )
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    space, blank = labels.index(" "), labels.index("")
    number = {label: i for i, label in enumerate(labels)}
    spelled = [word for word in unigrams if all(c in number for c in word)]
    words = Dictionary([*spelled, "<unk>"])
    model = KenLM(str(word_path), words)
    trie = Trie(len(labels), space)
    start_state = model.start(False)
    for index, word in enumerate(spelled):
        _, score = model.score(start_state, index)
        trie.insert([number[c] for c in word] + [space], index, score)
    trie.smear(SmearingMode.MAX)

    def build(settings: Settings) -> Decode:
        options = LexiconDecoderOptions(
            int(settings["beam_width"]), 25, 25.0, settings["lm_weight"], settings["word_score"], -np.inf, 0.0, True,
            CriterionType.CTC,
        )  # fmt: skip
        decoder = LexiconDecoder(options, trie, model, space, blank, len(spelled), [], False)

        def decode(line: NDArray[np.float32]) -> str:
            found = decoder.decode(line.ctypes.data, *line.shape)
            best = [t for t in found[0].tokens if 0 <= t < len(labels)] if found else []
            return _flashlight_text(best, labels)

        return decode

    grid = {"lm_weight": [0.5, 0.8, 1.2, 1.6, 2.2, 3.0], "word_score": [-1.0, 0.0, 1.0, 2.0]}
    start = {"lm_weight": 1.2, "word_score": 0.0, "beam_width": 50}
    return Contender("flashlight-text 0.0.7, lexicon", "word", grid, start, build, [10, 50])
