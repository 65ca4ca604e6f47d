"""The methods that pyctcdecode's users know, beside pyctcdecode itself."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from longhand_decoder import BeamSearchDecoderCTC, build_ctcdecoder

Lines = list[NDArray[np.float32]]
LABELS = ["", "a", "b", "c", " ", "'", ",", "1", "é"]
UNIGRAMS = ["a", "b", "ab", "cab", "abc", "bé", "a'b", ",", "1"]


@pytest.fixture(scope="module")
def pyctcdecode() -> Any:
    for needed in ("kenlm", "pyctcdecode"):
        pytest.importorskip(needed, reason=f"the yardstick {needed} is not installed")
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    return pytest.importorskip("pyctcdecode")


WIDE: dict[str, Any] = {"beam_width": 3000, "beam_prune_logp": -80.0, "token_min_logp": -80.0}
# Theirs joins texts that differ in white space alone, and scores the empty word behind a space at the end as an
# unknown word; without a space among the labels both must agree to the last digit.
NO_SPACE = [label for label in LABELS if label != " "]


def test_the_same_texts_and_scores_without_a_language_model(lines: Lines, pyctcdecode: Any) -> None:
    ours, theirs = build_ctcdecoder(NO_SPACE), pyctcdecode.build_ctcdecoder(NO_SPACE)
    for line in lines[:15]:
        short = np.delete(line[:5], LABELS.index(" "), axis=1)
        their_beams = {beam[0]: beam[3] for beam in theirs.decode_beams(short, **WIDE)}
        our_beams = ours.decode_beams(short, **WIDE)
        assert our_beams[0].text == next(iter(their_beams))
        for beam in our_beams[:20]:
            if beam.text in their_beams:
                # Theirs loses a little: it keeps two beams for a prefix and prunes them one by one.
                assert beam.logit_score == pytest.approx(their_beams[beam.text], abs=0.05)
                assert beam.logit_score > their_beams[beam.text] - 1e-4
    assert ours.decode_batch(None, [short]) == [ours.decode(short)]


def test_the_same_words_and_scores_with_a_language_model(
    lines: Lines, word_arpa: Path, pyctcdecode: Any
) -> None:
    ours = build_ctcdecoder(NO_SPACE, word_arpa, UNIGRAMS)
    theirs = pyctcdecode.build_ctcdecoder(NO_SPACE, str(word_arpa), UNIGRAMS)
    for line in lines[:10]:
        short = np.delete(line[:4], LABELS.index(" "), axis=1)
        their_beams = {beam[0]: beam[4] for beam in theirs.decode_beams(short, **WIDE)}
        our_beams = [beam for beam in ours.decode_beams(short, **WIDE) if beam.text]
        assert len(our_beams) > 1
        for beam in our_beams[:20]:
            assert beam.lm_score == pytest.approx(their_beams[beam.text], abs=1e-3)


@pytest.mark.parametrize("path", ["-aa-bb--  c-a-b", "a , ab cc-abb", "b--é-  -a-'b- - -cab", "-ab-c"])
def test_the_same_sentences_at_their_own_settings(path: str, word_arpa: Path, pyctcdecode: Any) -> None:
    ours = build_ctcdecoder(LABELS, word_arpa, UNIGRAMS)
    theirs = pyctcdecode.build_ctcdecoder(LABELS, str(word_arpa), UNIGRAMS)
    rng = np.random.default_rng(len(path))
    logits = rng.normal(size=(len(path), len(LABELS))).astype(np.float32)
    for frame, character in enumerate(path):
        logits[frame, LABELS.index(character) if character in LABELS else 0] += 9.0
    best, their_best = ours.decode_beams(logits)[0], theirs.decode_beams(logits)[0]
    assert best.text == their_best[0] == ours.decode(logits)
    assert best.lm_score == pytest.approx(their_best[4], abs=0.05)


def test_beams_carry_what_theirs_carry(lines: Lines, word_arpa: Path) -> None:
    ours = build_ctcdecoder(LABELS, word_arpa, UNIGRAMS)
    for line in lines:
        beams = ours.decode_beams(line)
        assert ours.decode_beams(line, prune_history=True)[0].text == ours.decode(line)
        assert [beam.lm_score for beam in beams] == sorted((beam.lm_score for beam in beams), reverse=True)
        for beam in beams:
            assert " ".join(word for word, _ in beam.text_frames) == beam.text
            assert all(0 <= begin < end <= len(line) for _, (begin, end) in beam.text_frames)


def test_a_state_carries_over_to_the_next_chunk(lines: Lines, word_arpa: Path) -> None:
    ours = build_ctcdecoder(LABELS, word_arpa, lm_score_boundary=False)
    first = ours.decode_beams(lines[0])[0]
    after = ours.decode_beams(lines[1], lm_start_state=first.last_lm_state)[0]
    assert after.last_lm_state == f"{first.text} {after.text}".strip()


def test_hotwords_and_logits(lines: Lines) -> None:
    ours = build_ctcdecoder(LABELS)
    boosted = [
        ours.decode(line, hotwords=["cab"], hotword_weight=25.0).split().count("cab") for line in lines
    ]
    plain = [ours.decode(line).split().count("cab") for line in lines]
    assert sum(boosted) > sum(plain)
    assert [ours.decode(5 * line + 1) for line in lines] == [ours.decode(5 * line) for line in lines]


def test_labels_as_networks_have_them(lines: Lines) -> None:
    ours = build_ctcdecoder(["<pad>", "<s>", "</s>", "<unk>", "|", "a", "b"])
    line = np.full((5, 7), -9.0, np.float32)
    for frame, column in enumerate([5, 0, 5, 4, 6]):
        line[frame, column] = 0.0
    line[2, 1] = 5.0  # </s> is no text, however sure the network is
    assert ours.decode(line) == "aa b"


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["[PAD]", "[UNK]", "a", "b"], "b"),
        (["_", "<unk>", "a", "b"], "b"),
        (["", "_", "a", "b"], "b_"),
        (["", "|", "a", "b"], "b"),
        (["", "|", " ", "b"], "b|"),
    ],
)
def test_names_of_blank_unknown_and_space(labels: list[str], text: str) -> None:
    line = np.full((3, 4), -9.0, np.float32)
    line[0, 3] = line[1, 0] = line[2, 1] = 0.0
    found = build_ctcdecoder(labels).decode(line)
    assert found.replace("\u2047", "") == text
    assert ("\u2047" in found) == ("unk" in labels[1].lower())


def test_logits_may_all_be_positive() -> None:
    assert build_ctcdecoder(["", "a"]).decode(np.array([[1.0, 9.0], [9.0, 1.0]], np.float32)) == "a"


def test_without_a_blank_there_is_one_more_column(lines: Lines, pyctcdecode: Any) -> None:
    labels = ["a", "b", "c", "d", "e", "f", "g", "h"]
    ours, theirs = build_ctcdecoder(labels), pyctcdecode.build_ctcdecoder(labels)
    for line in lines[:10]:
        assert ours.decode(9 * line) == theirs.decode(9 * line)


def test_the_state_after_words_with_punctuation(pyctcdecode: Any, tmp_path: Path) -> None:
    arpa = tmp_path / "words.arpa"
    arpa.write_text(
        "\\data\\\nngram 1=5\nngram 2=2\n\n\\1-grams:\n-1.0\t<unk>\t0\n-99\t<s>\t-0.3\n-1.0\t</s>\n"
        "-0.8\ta,b\t-0.2\n-0.9\tb\t-0.4\n\n\\2-grams:\n-0.1\ta,b b\n-1.5\tb b\n\n\\end\\\n"
    )
    labels = ["", "a", "b", ",", " "]
    ours, theirs = (
        build(labels, str(arpa), ["a,b", "b"], lm_score_boundary=False)
        for build in (build_ctcdecoder, pyctcdecode.build_ctcdecoder)
    )
    first, second = (np.full((frames, 5), np.log(0.01), np.float32) for frames in (3, 1))
    for frame, column in enumerate([1, 3, 2]):
        first[frame, column] = np.log(0.96)
    second[0, 2] = np.log(0.96)
    our_state = ours.decode_beams(first)[0].last_lm_state
    their_state = theirs.decode_beams(first)[0][1]
    our_score = ours.decode_beams(second, lm_start_state=our_state)[0].lm_score
    their_score = theirs.decode_beams(second, lm_start_state=their_state)[0][4]
    assert our_score == pytest.approx(their_score, abs=1e-3)


def test_hotwords_end_at_spaces(pyctcdecode: Any) -> None:
    labels = ["", "a", "b", ",", " "]
    line = np.full((3, 5), np.log(0.01), np.float32)
    for frame, column in enumerate([1, 3, 2]):
        line[frame, column] = np.log(0.96)
    for hotwords in (["a"], ["a,b"]):
        ours = build_ctcdecoder(labels).decode_beams(line, hotwords=hotwords)[0]
        theirs = pyctcdecode.build_ctcdecoder(labels).decode_beams(line, hotwords=hotwords)[0]
        assert ours.text == theirs[0]
        assert ours.lm_score == pytest.approx(theirs[4], abs=1e-3)


def test_words_that_the_model_lacks_do_not_become_known(pyctcdecode: Any, word_arpa: Path) -> None:
    labels = ["", *"abc", " "]
    unigrams = ["a", "b", "ab", "bab"]  # no "bab" in the model
    line = np.full((3, 5), np.log(0.01), np.float32)
    for frame, column in enumerate([2, 1, 2]):
        line[frame, column] = np.log(0.96)
    ours = build_ctcdecoder(labels, word_arpa, unigrams).decode_beams(line, **WIDE)
    theirs = pyctcdecode.build_ctcdecoder(labels, str(word_arpa), unigrams).decode_beams(line, **WIDE)
    our_score, their_score = (
        {beam[0]: beam[4] for beam in beams if beam[0]}["bab"] for beams in (ours, theirs)
    )
    assert our_score == pytest.approx(their_score, abs=1e-3)


def test_the_defaults_are_theirs(pyctcdecode: Any) -> None:
    theirs = pyctcdecode.BeamSearchDecoderCTC
    methods = ("decode", "decode_beams", "decode_batch", "decode_beams_batch")
    pairs = [(getattr(BeamSearchDecoderCTC, name), getattr(theirs, name)) for name in methods]
    for our_function, their_function in [*pairs, (build_ctcdecoder, pyctcdecode.build_ctcdecoder)]:
        expected = inspect.signature(their_function).parameters
        for name, parameter in inspect.signature(our_function).parameters.items():
            if name in expected:
                assert parameter.default == expected[name].default, (our_function, name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"beam_width": 2},
        {"beam_prune_logp": -0.5},
        {"token_min_logp": -0.5},
        {"hotwords": ["bé"]},
        {"hotwords": ["cab"], "hotword_weight": 1.0},
        {"lm_start_state": "ab"},
        {"prune_history": True},
    ],
)
def test_each_argument_of_a_call_counts(arguments: dict[str, Any], lines: Lines, word_arpa: Path) -> None:
    ours, fresh = (build_ctcdecoder(LABELS, word_arpa) for _ in range(2))
    before = [ours.decode_beams(line, hotwords=["cab"]) for line in lines[:6]]
    after = [ours.decode_beams(line, **{"hotwords": ["cab"], **arguments}) for line in lines[:6]]
    assert after == [fresh.decode_beams(line, **{"hotwords": ["cab"], **arguments}) for line in lines[:6]]
    assert after != before


def test_batches_of_beams(lines: Lines) -> None:
    ours = build_ctcdecoder(LABELS)
    assert ours.decode_beams_batch(None, lines[:4]) == [ours.decode_beams(line) for line in lines[:4]]


def test_unigrams_that_the_model_lacks_altogether(word_arpa: Path) -> None:
    with pytest.raises(ValueError, match="unigrams: none of the 2 words is in the model"):
        build_ctcdecoder(LABELS, word_arpa, ["zebra", "gnu"])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="BPE"):
        build_ctcdecoder(["", "\u2581the", "a"])
    with pytest.raises(ValueError, match="BPE"):
        build_ctcdecoder(["", "the", "##re"])
    with pytest.raises(ValueError, match="'ch'"):
        build_ctcdecoder(["", "ch", "a"])
    with pytest.raises(ValueError, match="probabilities"):
        build_ctcdecoder(["", "a"]).decode(np.full((3, 2), 0.5, np.float32))
    with pytest.raises(ValueError, match="unk_score_offset"):
        build_ctcdecoder(["", "a"], unk_score_offset=1.0)
    with pytest.raises(ValueError, match=r"alpha must be between 0 and 1000000, got -1\.0"):
        build_ctcdecoder(["", "a"], alpha=-1.0)
    with pytest.raises(ValueError, match="beta must be between"):
        build_ctcdecoder(["", "a"], beta=float("nan"))
    with pytest.raises(ValueError, match="unigrams must be a collection of words, got the string 'abc'"):
        build_ctcdecoder(["", "a"], unigrams="abc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam_prune_logp": 5}, "beam_prune_logp must be between -inf and 0, got 5"),
        ({"token_min_logp": 0.5}, r"token_min_logp must be between -inf and 0, got 0\.5"),
        ({"hotword_weight": 1e308}, "hotword_weight must be between -1000000 and 1000000"),
        ({"hotwords": "abc"}, "hotwords must be a sequence of words, got the string 'abc'"),
    ],
)
def test_what_is_refused_has_the_name_that_the_caller_gave_it(
    arguments: dict[str, Any], message: str, lines: Lines
) -> None:
    ours = build_ctcdecoder(LABELS)
    with pytest.raises(ValueError, match=message):
        ours.decode(lines[0], **arguments)
    with pytest.raises(ValueError, match=message):
        ours.decode_beams_batch(None, lines[:1], **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam_prune_logp": None}, "beam_prune_logp must be a number, got None"),
        ({"hotword_weight": "10"}, "hotword_weight must be a number, got '10'"),
        ({"hotwords": ["cab", 1]}, "a hotword must be a string, got 1"),
    ],
)
def test_arguments_of_the_wrong_type_are_named(arguments: dict[str, Any], message: str, lines: Lines) -> None:
    with pytest.raises(TypeError, match=message):
        build_ctcdecoder(LABELS).decode(lines[0], **arguments)


def test_the_item_of_a_batch_that_is_refused_is_named(lines: Lines) -> None:
    ours = build_ctcdecoder(LABELS)
    probabilities: Any = np.exp(lines[1])
    for decode in (ours.decode_batch, ours.decode_beams_batch):
        with pytest.raises(ValueError, match=r"^item 1: these look like probabilities"):
            decode(None, [lines[0], probabilities])
        with pytest.raises(TypeError, match=r"^item 0: log_probs must be a numpy array"):
            decode(None, [lines[0].tolist(), lines[1]])
