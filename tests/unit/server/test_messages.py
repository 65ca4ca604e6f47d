"""What requests mean, and what answers say; requests that would take long to look at are refused before that."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_ngram import random_ngram
from helpers.toy_model import ALPHABET, write_bundle
from longhand.v1 import recognition_pb2 as pb
from longhand_server.bundle import load_bundle
from longhand_server.config import ServerConfig
from longhand_server.errors import InvalidRequestError
from longhand_server.messages import read_options, read_priority, write_model, write_result
from longhand_server.metrics import Metrics
from longhand_server.recognizer import Alternative, Span, Timings, Transcription
from longhand_server.registry import Reading, ServedModel


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.RecognitionOptions(hotwords=[pb.Hotword()] * 500_000), "options.hotwords"),
        (pb.RecognitionOptions(allowed_characters="0" * 30_000_000), "options.allowed_characters"),
    ],
    ids=["hotwords", "characters"],
)
def test_endless_lists_are_refused_at_once(options: pb.RecognitionOptions, field: str) -> None:
    begun = time.process_time()
    with pytest.raises(InvalidRequestError, match="at most 10") as caught:
        read_options(options)
    assert caught.value.field == field
    assert time.process_time() - begun < 0.2


def test_priorities_are_ordered_and_the_ordinary_one_is_the_default() -> None:
    names = ("PRIORITY_LOW", "PRIORITY_NORMAL", "PRIORITY_UNSPECIFIED", "PRIORITY_HIGH")
    low, normal, unspecified, high = (
        read_priority(pb.RecognitionOptions(priority=pb.Priority.Value(name))) for name in names
    )
    assert low < normal == unspecified < high


def test_a_zero_that_was_sent_is_not_the_default() -> None:
    message = pb.RecognitionOptions(
        decoder=pb.DecoderOptions(word_weight=0.0), hotwords=[pb.Hotword(text="a", boost=0.0)]
    )
    options = read_options(message)
    assert options.word_weight == 0.0
    assert options.character_weight is None
    assert options.hotwords == (("a", 0.0),)


def test_every_part_of_a_reading_has_its_field() -> None:
    readings = (Alternative("ab", -1.0, -2.0, 1.0, 0.75), Alternative("b", -8.0, -16.0, 8.0, 0.25))
    timings = Timings(1.0, 2.0, 3.0, 4.0, 16.0, 5)
    word, letter = Span("ab", 0.5, 10.0, 30.0), Span("a", 0.125, 12.0, 20.0)
    model: Any = type("Model", (), {"name": "en", "version": "9"})
    message = pb.RecognitionResult()
    result = Transcription("ab", 0.875, readings, (word,), (letter,), 300, 40, timings)
    write_result(Reading(result, model), message)
    assert message == pb.RecognitionResult(
        text="ab",
        confidence=0.875,
        alternatives=[
            pb.Alternative(
                text=text,
                total_log_probability=total,
                acoustic_log_probability=acoustic,
                language_model_log_probability=language,
                confidence=confidence,
            )
            for text, total, acoustic, language, confidence in (
                ("ab", -1.0, -2.0, 1.0, 0.75),
                ("b", -8.0, -16.0, 8.0, 0.25),
            )
        ],
        words=[pb.Word(text="ab", confidence=0.5, x_start_px=10.0, x_end_px=30.0)],
        characters=[pb.Character(text="a", confidence=0.125, x_start_px=12.0, x_end_px=20.0)],
        model="en",
        model_version="9",
        image_width_px=300,
        image_height_px=40,
        timings=pb.Timings(
            decode_image_ms=1.0, queue_ms=2.0, infer_ms=3.0, beam_ms=4.0, total_ms=16.0, batch_size=5
        ),
    )


def test_a_model_tells_which_language_model_it_has_and_whether_it_failed(tmp_path: Path) -> None:
    language = random_ngram([*ALPHABET.replace(" ", "\u2581")], 2, seed=1).write_arpa(tmp_path / "char.arpa")
    folder = write_bundle(tmp_path / "model", files={"char.klm": language.read_bytes()})
    model = ServedModel(load_bundle(folder), ServerConfig(), "cpu", Metrics())
    message = write_model(model, is_default=False)
    assert (message.has_word_model, message.has_character_model) == (False, True)
    assert (message.is_default, message.state) == (False, pb.MODEL_STATE_UNLOADED)
    model.failed = True
    assert write_model(model, is_default=True).state == pb.MODEL_STATE_FAILED
