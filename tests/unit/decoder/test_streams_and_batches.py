"""Frames that come bit by bit, lines that come together, and threads that come at once."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from longhand_decoder import (
    BeamSearchOptions,
    CharacterSpan,
    CtcBeamSearchDecoder,
    Hypothesis,
    NgramLanguageModel,
    WordSpan,
)

Lines = list[NDArray[np.float32]]
LABELS = ["", "a", "b", "c", " ", "'", ",", "1", "é"]
OPTIONS = BeamSearchOptions(beam_width=12, alternatives=4, hotwords=["cab", "a b"])


@pytest.fixture(scope="module")
def decoder(word_model: NgramLanguageModel, character_model: NgramLanguageModel) -> CtcBeamSearchDecoder:
    return CtcBeamSearchDecoder(
        LABELS, word_model=word_model, character_model=character_model, options=OPTIONS, threads=3
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_stream_gives_what_the_whole_gives(
    data: st.DataObject, decoder: CtcBeamSearchDecoder, lines: Lines
) -> None:
    line = lines[data.draw(st.integers(0, len(lines) - 1))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(line)), max_size=6)))
    stream = decoder.start()
    for begin, end in zip([0, *cuts], [*cuts, len(line)], strict=True):
        stream.push(line[begin:end])
        assert stream.frames == end
        assert stream.best() == decoder.decode(line[:end])
    assert stream.finish() == decoder.decode(line)


def test_a_finished_stream_takes_nothing_more(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    stream = decoder.start()
    stream.finish()
    with pytest.raises(RuntimeError, match="finished"):
        stream.push(lines[0])
    with pytest.raises(RuntimeError, match="finished"):
        stream.finish()


def test_a_bad_chunk_is_refused_and_the_good_frames_before_it_count(
    decoder: CtcBeamSearchDecoder, lines: Lines
) -> None:
    stream = decoder.start()
    with pytest.raises(ValueError, match="columns"):
        stream.push(np.zeros((1, 2), np.float32))
    stream.push(lines[3])
    assert stream.finish() == decoder.decode(lines[3])


def test_a_stream_outlives_the_names_of_decoder_and_options(
    word_model: NgramLanguageModel, lines: Lines
) -> None:
    expected = CtcBeamSearchDecoder(LABELS, word_model=word_model).decode(lines[1], OPTIONS)
    stream = CtcBeamSearchDecoder(LABELS, word_model=word_model).start(OPTIONS)
    stream.push(lines[1])
    assert stream.finish() == expected


def test_a_stream_refuses_a_second_thread(decoder: CtcBeamSearchDecoder) -> None:
    flat = np.full((4000, len(LABELS)), -np.log(len(LABELS)), np.float32)
    stream = decoder.start()
    refused: list[str] = []

    def insist(call: Callable[[], object]) -> None:
        while True:
            try:
                call()
            except RuntimeError as problem:
                refused.append(str(problem))
                time.sleep(0.001)
            else:
                return

    pushing = threading.Thread(target=insist, args=(lambda: stream.push(flat),))
    pushing.start()
    while pushing.is_alive():
        insist(stream.best)
    assert set(refused) == {"the stream is in use by another thread"}
    assert stream.finish() == decoder.decode(flat)


def test_a_batch_gives_what_single_lines_give(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    assert decoder.decode_batch(lines) == [decoder.decode(line) for line in lines]
    assert decoder.decode_greedy_batch(lines) == [decoder.decode_greedy(line) for line in lines]
    assert decoder.decode_batch([]) == []
    assert decoder.decode_batch(iter(lines)) == decoder.decode_batch(lines)
    assert decoder.decode_text_batch(iter(lines)) == [decoder.decode_text(line) for line in lines]


def test_a_batch_of_more_lines_than_are_read_at_a_time() -> None:
    few = CtcBeamSearchDecoder(["", "a"])
    sure = [np.log(np.array([[0.2, 0.8]] * (i % 2), np.float32).reshape(-1, 2)) for i in range(150)]
    assert few.decode_text_batch(sure) == ["", "a"] * 75
    with pytest.raises(ValueError, match="item 149: "):
        few.decode_text_batch([*sure[:149], np.zeros((1, 3), np.float32)])


def test_one_bad_item_leaves_the_others_alone(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    broken = lines[2].copy()
    broken[0, 0] = np.nan
    items = [lines[0], broken, np.zeros((2, 3), np.float32), [1.0], lines[1]]
    got = decoder.decode_batch(items, return_exceptions=True)  # type: ignore[call-overload]
    assert got[0] == decoder.decode(lines[0])
    assert got[4] == decoder.decode(lines[1])
    assert [type(item) for item in got[1:4]] == [ValueError, ValueError, TypeError]
    assert "NaN" in str(got[1])


def test_the_cache_of_earlier_lines_changes_nothing(
    word_model: NgramLanguageModel, character_model: NgramLanguageModel, lines: Lines
) -> None:
    def fresh() -> CtcBeamSearchDecoder:
        return CtcBeamSearchDecoder(
            LABELS, word_model=word_model, character_model=character_model, options=OPTIONS
        )

    used = fresh()
    for _ in range(2):
        for line in lines:
            assert used.decode(line) == fresh().decode(line)


def test_threads_hammering_one_decoder(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    expected = [decoder.decode(line) for line in lines]
    wrong: list[int] = []

    def hammer(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(lines))
        wrong.extend(int(i) for i in order if decoder.decode(lines[i]) != expected[i])
        if decoder.decode_batch(lines) != expected:
            wrong.append(-1)
        stream = decoder.start()
        stream.push(lines[seed])
        if stream.finish() != expected[seed]:
            wrong.append(-2)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _decode_in_child(decoder: CtcBeamSearchDecoder, lines: Lines, answers: object) -> None:
    answers.put([hypotheses[0].text for hypotheses in decoder.decode_batch(lines)])  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_work_in_a_forked_child(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    expected = [hypotheses[0].text for hypotheses in decoder.decode_batch(lines)]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_decode_in_child, args=(decoder, lines, answers))
    child.start()
    assert answers.get(timeout=30) == expected
    child.join(timeout=30)


def _drop_in_child(decoders: list[CtcBeamSearchDecoder]) -> None:
    decoders.clear()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_drop_the_decoder(lines: Lines) -> None:
    decoders = [CtcBeamSearchDecoder(LABELS, threads=3)]
    decoders[0].decode_batch(lines)
    child = multiprocessing.get_context("fork").Process(target=_drop_in_child, args=(decoders,))
    child.start()
    child.join(timeout=30)
    ended = child.exitcode
    child.kill()
    assert ended == 0


_MANY_THREADS = """
import resource, sys
import numpy as np
from longhand_decoder import CtcBeamSearchDecoder
decoder = CtcBeamSearchDecoder(["", "a"], threads=1000)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)  # a dozen stacks of 8 MiB
sure = np.log(np.array([[0.1, 0.9], [0.9, 0.1]], np.float32))
print([hypotheses[0].text for hypotheses in decoder.decode_batch([sure] * 5)])
"""


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="the sanitizer needs address space without end")
def test_a_batch_is_read_where_threads_cannot_be_had() -> None:
    done = subprocess.run([sys.executable, "-c", _MANY_THREADS], capture_output=True, text=True, check=False)
    assert done.stdout == f"{['a'] * 5}\n", done.stderr


def test_spans_without_confidences(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    options = dataclasses.replace(OPTIONS, span_confidences=False)
    for line in lines:
        for plain, bare in zip(decoder.decode(line), decoder.decode(line, options), strict=True):
            assert (bare.text, bare.score, bare.confidence) == (plain.text, plain.score, plain.confidence)
            spans = [
                (span.text, span.first_frame, span.last_frame) for span in plain.words + plain.characters
            ]
            got = bare.words + bare.characters
            assert [(span.text, span.first_frame, span.last_frame) for span in got] == spans
            assert all(span.confidence == 0.0 for span in got)


def test_options_of_a_call_hold_for_that_call(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    digits = BeamSearchOptions(allowed_characters="1", alternatives=50)
    for hypothesis in decoder.decode(lines[5], digits):
        assert set(hypothesis.text) <= {"1"}
    assert set(decoder.decode_greedy(lines[5], digits).text) <= {"1"}
    assert len(decoder.decode(lines[5])) == OPTIONS.alternatives


def test_results_are_values(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    best = decoder.decode(lines[7])[0]
    assert pickle.loads(pickle.dumps(best)) == best
    assert hash(best) == hash(pickle.loads(pickle.dumps(best)))
    assert best != decoder.decode(lines[8])[0]
    assert best.text in repr(best)
    with pytest.raises(AttributeError):
        best.text = "x"  # type: ignore[misc]
    copy = Hypothesis(
        text=best.text,
        score=best.score,
        acoustic_score=best.acoustic_score,
        word_model_score=best.word_model_score,
        character_model_score=best.character_model_score,
        confidence=best.confidence,
        characters=best.characters,
        words=best.words,
    )
    assert copy == best


def test_results_differ_where_one_field_does() -> None:
    span: dict[str, Any] = {"text": "a", "first_frame": 1, "last_frame": 2, "confidence": 0.5}
    character: object = CharacterSpan(**span)
    assert character != WordSpan(**span)
    whole: dict[str, Any] = {"text": "a", "score": -1.0, "acoustic_score": -2.0, "confidence": 0.5}
    whole |= {"word_model_score": -3.0, "character_model_score": -4.0}
    whole |= {"characters": (CharacterSpan(**span),), "words": (WordSpan(**span),)}
    kinds: list[tuple[type, dict[str, Any]]] = [(CharacterSpan, span), (WordSpan, span), (Hypothesis, whole)]
    for kind, fields in kinds:
        assert kind(**fields) == kind(**fields)
        assert hash(kind(**fields)) == hash(kind(**fields))
        for name in fields:
            other: Any = "b" if name == "text" else () if name in ("characters", "words") else 7
            assert kind(**fields) != kind(**{**fields, name: other}), name


def test_options_are_those_of_one_decoder(lines: Lines) -> None:
    one, other = CtcBeamSearchDecoder(LABELS), CtcBeamSearchDecoder(LABELS)
    options = other._core.prepare(OPTIONS)
    calls: list[Callable[[], object]] = [
        lambda: one._core.decode(lines[0], options),
        lambda: one._core.decode_text(lines[0], options),
        lambda: one._core.decode_greedy(lines[0], options),
        lambda: one._core.start(options),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="these options were prepared for another decoder"):
            call()


def test_confidences_account_for_the_alternatives(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    for line in lines:
        hypotheses = decoder.decode(line, BeamSearchOptions(beam_width=12, alternatives=12))
        assert sum(h.confidence for h in hypotheses) == pytest.approx(1.0)
        for h in hypotheses:
            assert all(h.confidence - 1e-9 <= c.confidence <= 1.0 for c in h.characters)
            assert all(h.confidence - 1e-9 <= w.confidence <= 1.0 for w in h.words)
            assert "".join(c.text for c in h.characters) == h.text
            assert [w.text for w in h.words] == h.text.split()
            ends = [-1, *(c.last_frame for c in h.characters)]
            assert all(e < c.first_frame <= c.last_frame for e, c in zip(ends, h.characters, strict=False))
            assert all(c.last_frame < len(line) for c in h.characters)


def test_confidences_are_shares_of_the_scaled_scores(decoder: CtcBeamSearchDecoder, lines: Lines) -> None:
    options = BeamSearchOptions(beam_width=6, alternatives=6, confidence_scale=0.3)
    for line in lines[:10]:
        hypotheses = decoder.decode(line, options)
        shares = np.exp([0.3 * h.score for h in hypotheses])
        assert [h.confidence for h in hypotheses] == pytest.approx(list(shares / shares.sum()))
