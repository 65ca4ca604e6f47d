"""The recogniser's own part: which settings a request's search gets, and which lines are read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.tiny_ngram import random_ngram
from helpers.toy_model import ALPHABET, write_bundle
from longhand_decoder import CharacterSpan, Hypothesis, WordSpan
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.image import LineImage
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Recognizer, Span, Transcription, _place_words, _trimmed
from longhand_server.runtime import load_line_model


class ScriptedLineModel:
    """A network that puts out what it is told to, call by call; of every line its last word stays."""

    device, runtime = "cpu", "script"

    def __init__(self, *calls: list[NDArray[np.float32]]) -> None:
        self.calls = list(calls)
        self.asked: list[int] = []
        self.widths: list[list[int]] = []

    def log_probs(self, images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.asked.append(len(images))
        self.widths.append([image.shape[1] for image in images])
        return self.calls[len(self.asked) - 1]


def said(*characters: str, sure: float) -> NDArray[np.float32]:
    """One frame a character of ``ALPHABET``, which has so much of the probability; the others share the rest."""
    probabilities = np.full((len(characters), len(ALPHABET) + 1), (1 - sure) / len(ALPHABET), np.float32)
    for frame, character in zip(probabilities, characters, strict=True):
        frame[1 + ALPHABET.index(character)] = sure
    return np.log(probabilities)


def line(width: int = 40) -> LineImage:
    return LineImage(np.zeros((64, width), np.float32), 2 * width, 64, 0.0, 2.0, False)


@pytest.fixture
def bundle(tmp_path: Path) -> ModelBundle:
    """With a character model."""
    model = random_ngram([*ALPHABET.replace(" ", "\u2581")], 2, seed=1).write_arpa(tmp_path / "char.arpa")
    decoder = {"beam_width": 20, "character_weight": 0.01}
    return load_bundle(
        write_bundle(tmp_path / "model", files={"char.klm": model.read_bytes()}, decoder=decoder)
    )


PLAIN = RecognitionOptions(include_characters=True)
UNSURE, SURE = said("a", "b", "a", sure=0.4), said("a", "b", "a", sure=0.99)


def test_a_line_of_which_the_model_is_unsure_is_read_again(bundle: ModelBundle) -> None:
    network = ScriptedLineModel(
        [UNSURE, SURE], [said("c", "d", "c", sure=0.5)], [said("e", "d", "e", sure=0.9)]
    )
    first, second = Recognizer(bundle, network).recognize([line(), line()], [PLAIN, PLAIN])
    # Two looks at the unsure line, and none at the other; of three readings that with the highest score.
    assert network.asked == [2, 1, 1]
    assert (first.text, second.text) == ("ede", "aba")
    assert (first.second_look, second.second_look) == (True, False)
    assert first.confidence > 0.5
    assert (first.image_width, first.image_height) == (80, 64)
    # The place of a character is that in the look it was read from: the upright one begins 8 columns further left.
    assert [span.x_end for span in first.characters] == [0.0, 0.0, 8.0]
    assert [span.x_end for span in second.characters] == [8.0, 16.0, 24.0]
    assert first.timings.batch_size == 2


def test_lines_that_are_sure_are_told_before_others_are_looked_at_again(bundle: ModelBundle) -> None:
    network = ScriptedLineModel([UNSURE, SURE, UNSURE], *[[UNSURE] * 2] * 2)
    told: list[tuple[int, Mapping[int, Transcription]]] = []
    recognizer = Recognizer(bundle, network)
    lines = [line(), line(), line()]
    results = recognizer.transcribe(
        lines,
        *recognizer.infer(lines),
        [PLAIN] * 3,
        tell_sure=lambda sure: told.append((len(network.asked), sure)),
    )
    assert told == [(1, {1: results[1]})]
    assert len(network.asked) == 3
    assert [result.second_look for result in results] == [True, False, True]
    # Each one's times are filled in further on its own way.
    assert len({id(result.timings) for result in results}) == 3
    assert results[1].timings.infer_ms < results[0].timings.infer_ms == results[2].timings.infer_ms
    told.clear()
    recognizer = Recognizer(bundle, ScriptedLineModel([SURE]))
    recognizer.transcribe([line()], *recognizer.infer([line()]), [PLAIN], tell_sure=told.append)  # type: ignore[arg-type]
    assert not told


@pytest.mark.parametrize(("words", "characters"), [(True, False), (False, True), (False, False)])
def test_words_and_characters_are_told_where_they_are_asked_for(
    words: bool, characters: bool, bundle: ModelBundle
) -> None:
    options = RecognitionOptions(include_words=words, include_characters=characters)
    found = Recognizer(bundle, ScriptedLineModel([SURE])).recognize([line()], [options])[0]
    assert [word.text for word in found.words] == ["aba"] * words
    assert [character.text for character in found.characters] == [*"aba"] * characters


def test_a_single_character_is_about_as_wide_as_a_third_of_the_height(bundle: ModelBundle) -> None:
    found = Recognizer(bundle, ScriptedLineModel([said("a", sure=0.99)])).recognize([line()], [PLAIN])[0]
    (place,) = found.characters
    assert (place.x_start, place.x_end) == pytest.approx((0.0, 2 * (2 + 64 / 3)))


def test_what_the_network_says_too_often_counts_less(bundle: ModelBundle) -> None:
    often = (0.1, 0.85, *[0.01] * (len(ALPHABET) - 1))  # the blank, "a", the others
    probabilities = np.full((1, 1 + len(ALPHABET)), 0.01, np.float32)
    probabilities[0, 1:3] = 0.6, 0.35
    options = replace(PLAIN, character_weight=0.5)
    texts = []
    for model in (bundle, replace(bundle, label_priors=often)):
        network = ScriptedLineModel([np.log(probabilities)])
        recognizer = Recognizer(model, network, second_look=False)
        texts.append(recognizer.recognize([line()], [options])[0].text)
    assert texts == ["a", "b"]


def test_the_time_of_every_look_counts(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ScriptedLineModel(*[[UNSURE]] * 3)
    recognizer = Recognizer(bundle, network)
    monkeypatch.setattr(network, "log_probs", _slow(network.log_probs))
    monkeypatch.setattr(recognizer, "_decode_all", _slow(recognizer._decode_all))
    begun = time.perf_counter()
    timings = recognizer.recognize([line()], [PLAIN])[0].timings
    assert min(timings.infer_ms, timings.beam_ms) >= 3 * 10
    assert timings.infer_ms + timings.beam_ms <= (time.perf_counter() - begun) * 1000


def _slow(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        time.sleep(0.011)
        return function(*arguments)

    return call


HOPELESS = said(*"abacabacabacab", sure=0.25)


@pytest.mark.parametrize("sure", [0.99, 0.3])
def test_a_line_that_makes_no_sense_is_looked_at_upside_down(sure: float, bundle: ModelBundle) -> None:
    once = Recognizer(bundle, ScriptedLineModel([HOPELESS]), second_look=False).recognize([line()], [PLAIN])[
        0
    ]
    # The turned line scores more in either case, but lines are seldom upside down, so that much more is needed.
    is_turned = sure > 0.5
    network = ScriptedLineModel(
        [HOPELESS, SURE], [said(*"cdcdedcdecdede", sure=sure)], [HOPELESS], [HOPELESS]
    )
    first, second = Recognizer(bundle, network).recognize([line(), line()], [PLAIN, PLAIN])
    assert (first.text, first.rotation) == (("cdcdedcdecdede", 180) if is_turned else (once.text, 0))
    assert (second.text, second.rotation) == ("aba", 0)
    assert (first.second_look, second.second_look) == (True, False)
    # What is read well then is not looked at again.
    assert network.asked == ([2, 1] if is_turned else [2, 1, 1, 1])


def test_where_a_turned_line_is_unsure_the_other_looks_are_at_the_turned_one(bundle: ModelBundle) -> None:
    unsure, best = (said(*"cdcdedcdecdede", sure=sure) for sure in (0.5, 0.99))
    network = ScriptedLineModel([HOPELESS], [unsure], [HOPELESS], [best])
    found = Recognizer(bundle, network).recognize([line()], [PLAIN])[0]
    assert (found.text, found.rotation) == ("cdcdedcdecdede", 180)
    assert network.asked == [1, 1, 1, 1]


def test_a_first_reading_stays_where_the_others_are_worse(bundle: ModelBundle) -> None:
    worse = said("e", "d", "e", sure=0.2)
    network = ScriptedLineModel([UNSURE], [worse], [worse])
    recognizer = Recognizer(bundle, network)
    once = recognizer.transcribe([line()], [UNSURE], 0.0, [RecognitionOptions(greedy=True)])[0]
    network.asked.clear()
    assert recognizer.recognize([line()], [PLAIN])[0].text == once.text == "aba"
    assert network.asked == [1, 1, 1]


def test_second_looks_at_a_full_batch_run_in_batches_no_larger_and_of_like_widths(
    bundle: ModelBundle,
) -> None:
    network = ScriptedLineModel(*[[UNSURE] * 8] * 3)
    Recognizer(bundle, network).recognize([line(400)] * 8, [PLAIN] * 8)
    assert network.asked == [8, 8, 8]
    assert [len(set(widths)) for widths in network.widths] == [1, 1, 1]


def test_lines_that_nobody_waits_for_any_more_are_not_looked_at_again(bundle: ModelBundle) -> None:
    network = ScriptedLineModel([UNSURE] * 3, [UNSURE] * 2, [UNSURE])
    # Of three lines the first is given up before the second look, the next one before the third.
    Recognizer(bundle, network).recognize(
        [line()] * 3, [PLAIN] * 3, lambda index: index + 1 > len(network.asked)
    )
    assert network.asked == [3, 2, 1]


@pytest.mark.parametrize(
    "why",
    [
        *("sure", "greedy", "own temperature", "switched off", "no language model"),
        *("a character model without weight", "a word model without weight"),
    ],
)
def test_there_is_no_second_look(why: str, bundle: ModelBundle) -> None:
    network = ScriptedLineModel([SURE if why == "sure" else said("a", "b", "a", sure=0.3)])
    if why == "no language model":
        bundle = replace(bundle, character_model_path=None)
    if why == "a word model without weight":
        bundle = replace(bundle, character_model_path=None, word_model_path=bundle.character_model_path)
    recognizer = Recognizer(bundle, network, second_look=why != "switched off")
    options = RecognitionOptions(
        greedy=why == "greedy",
        temperature=1.0 if why == "own temperature" else None,
        word_weight=0.0 if why == "a word model without weight" else None,
        character_weight=0.0 if why == "a character model without weight" else None,
    )
    recognizer.recognize([line()], [options])
    assert network.asked == [1]


def confidence(log_probs: NDArray[np.float32], options: RecognitionOptions, directory: Path) -> float:
    """Of a recogniser whose model was tuned to a temperature of 4."""
    bundle = load_bundle(write_bundle(directory, decoder={"temperature": 4.0}))
    recognizer = Recognizer(bundle, load_line_model(bundle, "cpu"))
    image = LineImage(np.zeros((64, 4 * len(log_probs)), np.float32), 100, 64, 0.0, 1.0, False)
    return recognizer.transcribe([image], [log_probs], 0.0, [options])[0].confidence


@pytest.mark.parametrize(
    "options",
    [
        RecognitionOptions(greedy=True),
        RecognitionOptions(greedy=True, allowed_characters="ab"),
        RecognitionOptions(greedy=True, temperature=1.0),
    ],
)
def test_greedy_confidences_are_the_network_s_own(options: RecognitionOptions, tmp_path: Path) -> None:
    frames = np.full((3, 7), 1e-9, np.float32)  # blank and six characters
    frames[[0, 1, 2], [1, 0, 2]] = 0.9, 1.0, 0.6
    frames[[0, 2], [2, 1]] = 0.1, 0.4
    log_probs = np.log(frames / frames.sum(axis=1, keepdims=True))
    wanted = 0.9 * 0.6
    assert confidence(log_probs, options, tmp_path / "one") == pytest.approx(wanted, rel=1e-4)
    flat = replace(options, temperature=4.0)
    assert confidence(log_probs, flat, tmp_path / "two") < 0.8 * wanted


def test_that_a_frame_begins_no_more_readings_than_ordinary_lines_need(tmp_path: Path) -> None:
    # Options of a request must not multiply what a line costs by all characters there are.
    characters = "".join(chr(code) for code in range(33, 33 + 80))
    bundle = replace(load_bundle(write_bundle(tmp_path / "model")), alphabet=Alphabet(characters))
    undecided = np.full((1, 81), -np.log(81), np.float32)
    recognizer = Recognizer(bundle, ScriptedLineModel())
    options = RecognitionOptions(beam_width=1000, temperature=10.0, alternatives=100)
    (found,) = recognizer.transcribe([line()], [undecided], 0.0, [options])
    assert len(found.alternatives) == 1 + 40
    own = replace(bundle, decoder={"max_tokens_per_frame": 7})
    assert Recognizer(own, ScriptedLineModel()).defaults.max_tokens_per_frame == 7


def reading(text: str, confidence: float = 0.5) -> Hypothesis:
    """One frame a character."""
    return Hypothesis(
        text=text,
        score=0.0,
        acoustic_score=0.0,
        word_model_score=0.0,
        character_model_score=0.0,
        confidence=confidence,
        characters=[
            CharacterSpan(text=character, first_frame=frame, last_frame=frame, confidence=0.5)
            for frame, character in enumerate(text)
        ],
        words=[WordSpan(text=word, first_frame=0, last_frame=0, confidence=0.5) for word in text.split()],
    )


def test_readings_that_differ_in_outer_spaces_are_one() -> None:
    first, second = _trimmed([reading(" ab", 0.25), reading("c", 0.125), reading("ab ", 0.5)])
    assert (first.text, first.confidence) == ("ab", 0.75)
    assert [(span.text, span.first_frame) for span in first.characters] == [("a", 1), ("b", 2)]
    assert (second.text, second.confidence) == ("c", 0.125)
    assert _trimmed([reading("a", 0.75), reading("a ", 0.5)])[0].confidence == 1.0


def test_a_word_reaches_from_its_first_character_to_its_last() -> None:
    text = "ab  cde f"
    places = [Span(character, 0.5, float(x), x + 1.0) for x, character in enumerate(text)]
    words = _place_words(reading(text), places)
    assert [(word.text, word.x_start, word.x_end) for word in words] == [
        ("ab", 0.0, 2.0),
        ("cde", 4.0, 7.0),
        ("f", 8.0, 9.0),
    ]
