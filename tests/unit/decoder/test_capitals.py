"""Lines in capitals: weighed as small letters, written in capitals. The oracle: the search on swapped columns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.tiny_ngram import random_ngram
from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, Hypothesis, NgramLanguageModel

LABELS = ["", *"abcABC", " ", "é", "É", "œ", "Œ", "ß", "1", "'"]
SMALL_LETTER_SHIFT = 3.0
FOLDING = BeamSearchOptions(beam_width=30, alternatives=5, fold_capitals=True)


def frames(text: str, *, sure: float = 0.85, seed: int = 0) -> NDArray[np.float32]:
    """Each character in a frame of its own, a blank after it, the rest of the probability at random."""
    rng = np.random.default_rng(seed)
    rows = []
    for character in text:
        for label in (LABELS.index(character), 0):
            rest = rng.dirichlet(np.full(len(LABELS), 0.3))
            row = (1 - sure) * rest
            row[label] += sure
            rows.append(np.log(np.maximum(row, 1e-12) / np.maximum(row, 1e-12).sum()))
    return np.array(rows, np.float32).reshape(len(rows), len(LABELS))


def swapped(log_probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The columns of each letter's two cases in each other's place, what looks like a capital then less likely."""
    columns = [LABELS.index(label.swapcase()) if _cased(label) else i for i, label in enumerate(LABELS)]
    out = log_probs[:, columns].copy()
    out[:, [i for i, label in enumerate(LABELS) if _cased(label) and label.isupper()]] -= SMALL_LETTER_SHIFT
    return out


def in_capitals(log_probs: NDArray[np.float32]) -> bool:
    best = [int(label) for label, _ in itertools.groupby(log_probs.argmax(axis=1))]
    capitals = sum(_cased(LABELS[label]) and LABELS[label].isupper() for label in best)
    small = sum(_cased(LABELS[label]) and LABELS[label].islower() for label in best)
    return bool(capitals >= 4 and capitals >= 3 * small)


def _cased(label: str) -> bool:
    other: str = label.swapcase()
    return other in LABELS and other != label


def swap(text: str) -> str:
    """The other case of every letter that has one; "ß" has none among single characters."""
    return "".join(c.swapcase() if _cased(c) else c for c in text)


def written(hypothesis: Hypothesis) -> tuple[object, ...]:
    """What can be seen of a hypothesis that was found among swapped columns."""
    return (
        swap(hypothesis.text),
        pytest.approx(hypothesis.score, abs=1e-4),
        pytest.approx(hypothesis.confidence, abs=1e-4),
        [(swap(c.text), c.first_frame, c.last_frame) for c in hypothesis.characters],
        [swap(w.text) for w in hypothesis.words],
    )


def seen(hypothesis: Hypothesis) -> tuple[object, ...]:
    return (
        hypothesis.text,
        hypothesis.score,
        hypothesis.confidence,
        [(c.text, c.first_frame, c.last_frame) for c in hypothesis.characters],
        [w.text for w in hypothesis.words],
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NgramLanguageModel]:
    folder = tmp_path_factory.mktemp("capitals")
    words = random_ngram(["ab", "ba", "cab", "éa", "œb", "Cab", "1"], 3, 5).write_arpa(folder / "w.arpa")
    letters = random_ngram([*"abcABCéœß1", "\u2581"], 4, 6).write_arpa(folder / "c.arpa")
    return {"word_model": NgramLanguageModel(words), "character_model": NgramLanguageModel(letters)}


@pytest.fixture(scope="module")
def priors() -> NDArray[np.float64]:
    return np.random.default_rng(8).uniform(0.01, 0.5, len(LABELS))


@pytest.mark.parametrize("text", ["ABBA CAB", "ÉAB ŒBA", "AB CAB 1 ßBA", "ABCABcA", "CA BA ABA"])
@pytest.mark.parametrize("sure", [0.9, 0.3])
def test_it_is_the_search_on_swapped_columns(
    text: str, sure: float, models: dict[str, Any], priors: NDArray[np.float64]
) -> None:
    folded = 0
    for seed in range(20):
        line = frames(text, sure=sure, seed=seed)
        for changes in (
            {},
            {"word_weight": 0.0, "word_bonus": 0.0, "unknown_word_penalty": 0.0},
            {"temperature": 1.6},
        ):
            options = replace(FOLDING, **changes)  # type: ignore[arg-type]
            decoder = CtcBeamSearchDecoder(LABELS, **models, label_priors=priors, options=options)
            plain = replace(options, fold_capitals=False)
            if in_capitals(line):
                folded += 1
                wanted = decoder.decode(swapped(line), replace(plain, input="logits"))
                assert [seen(h) for h in decoder.decode(line)] == [written(h) for h in wanted]
                assert decoder.decode_text(line) == swap(wanted[0].text)
            else:
                assert [seen(h) for h in decoder.decode(line)] == [
                    seen(h) for h in decoder.decode(line, plain)
                ]
    # Noise makes other lines of some.
    assert folded == 60 if sure > 0.8 else 0 < folded < 60


def test_words_in_capitals_are_known(models: dict[str, Any]) -> None:
    line = frames("AB BA", sure=0.98)
    decoder = CtcBeamSearchDecoder(LABELS, word_model=models["word_model"])
    plain = BeamSearchOptions(unknown_word_penalty=5.0, token_threshold=-20.0, beam_threshold=-30.0)
    # Two unknown words cost twice as much as one.
    line[4] = np.log(np.full(len(LABELS), 1e-3, np.float32))
    line[4, [0, LABELS.index(" ")]] = np.log([0.6, 0.39])
    assert decoder.decode_text(line, plain) == "ABBA"
    assert decoder.decode_text(line, replace(plain, fold_capitals=True)) == "AB BA"


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("ABC", False),
        ("ABCA", True),
        ("ABCAb", True),
        ("ABCAbb c", False),
        ("ABCABCab 1", True),
        ("abba cab", False),
        ("ABBA cab", False),
        ("1 1 1 '", False),
        ("", False),
    ],
)
def test_lines_that_are_not_in_capitals_are_read_as_ever(
    text: str, folds: bool, models: dict[str, Any], priors: NDArray[np.float64]
) -> None:
    decoder = CtcBeamSearchDecoder(LABELS, **models, label_priors=priors, options=FOLDING)
    line = frames(text, sure=0.97)
    plain = [seen(h) for h in decoder.decode(line, replace(FOLDING, fold_capitals=False))]
    got = [seen(h) for h in decoder.decode(line)]
    assert (got != plain) == folds
    batch = decoder.decode_batch([line, frames("abba")])
    assert [seen(h) for h in batch[0]] == got


def test_hotwords_stand_for_either_case_and_the_dearest_counts(models: dict[str, Any]) -> None:
    line = frames("ABAA CAB", sure=0.9)
    decoder = CtcBeamSearchDecoder(LABELS, **models, options=FOLDING)
    boosted = {
        hotwords: decoder.decode(line, replace(FOLDING, hotwords=hotwords))[0].score
        for hotwords in ((), (("abaa", 2.0),), (("Abaa", 2.0),), (("ABAA", 1.0), ("abaa", 2.0)))
    }
    none, *some = boosted.values()
    # It is also a known word then: that takes the penalty off.
    assert some == [pytest.approx(some[0])] * 3
    assert some[0] > none + 2.0


def test_allowed_characters_are_those_that_are_written(models: dict[str, Any]) -> None:
    decoder = CtcBeamSearchDecoder(LABELS, **models, options=FOLDING)
    line = frames("ABCA CAB", sure=0.8)
    for hypothesis in decoder.decode(line, replace(FOLDING, allowed_characters="ABc ")):
        assert set(hypothesis.text) <= set("ABc ")
    assert decoder.decode(line, replace(FOLDING, allowed_characters="ABC "))[0].text == "ABCA CAB"


def test_a_context_in_capitals_counts_like_one_in_small_letters(models: dict[str, Any]) -> None:
    decoder = CtcBeamSearchDecoder(LABELS, **models, options=FOLDING)
    line = frames("ABBA CAB")
    scores = [
        decoder.decode(line, replace(FOLDING, context=context))[0].score for context in ("ab ba", "AB BA", "")
    ]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[0] != pytest.approx(scores[2])


def test_neither_closed_lexicons_nor_streams_fold(models: dict[str, Any]) -> None:
    line = frames("ABBA CAB", sure=0.95)
    decoder = CtcBeamSearchDecoder(LABELS, **models, lexicon=["ABBA", "CAB", "abba"], options=FOLDING)
    closed = decoder.decode(line, replace(FOLDING, closed_lexicon=True))
    assert closed[0].text == "ABBA CAB"
    stream = decoder.start()
    stream.push(line)
    plain = decoder.decode(line, replace(FOLDING, fold_capitals=False))
    assert [seen(h) for h in stream.finish()] == [seen(h) for h in plain]


def test_what_is_no_line_is_refused_as_ever() -> None:
    decoder = CtcBeamSearchDecoder(LABELS, options=FOLDING)
    line = frames("ABBA CAB")
    line[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        decoder.decode(line)
    with pytest.raises(ValueError, match="labels"):
        decoder.decode(line[:, :-1])


def test_capitals_are_what_python_takes_for_them(tmp_path: Path) -> None:
    """Every pair of letters: a word in small letters is known in capitals."""
    pairs = [
        (chr(code), chr(code).lower())
        for code in range(0x3000)
        if chr(code).isalpha() and len(chr(code).lower()) == 1 and chr(code).lower() != chr(code)
        if chr(code).lower().upper() == chr(code)
    ]
    assert len(pairs) > 900
    for capital, small in pairs[::7]:
        labels = ["", capital, small]
        line = np.log(np.array([[0.01, 0.98, 0.01], [0.98, 0.01, 0.01]] * 4, np.float32))
        decoder = CtcBeamSearchDecoder(labels, lexicon=[4 * small])
        options = BeamSearchOptions(unknown_word_penalty=4.0)
        plain = decoder.decode(line, options)[0]
        folded = decoder.decode(line, replace(options, fold_capitals=True))[0]
        assert folded.text == plain.text == 4 * capital
        assert folded.score > plain.score + 3.0
