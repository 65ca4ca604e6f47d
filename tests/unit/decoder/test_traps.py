"""What CTC decoders get wrong, and what callers pass by mistake."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel

LABELS = ["", "a", "b", " "]


def sure(path: str, labels: list[str] = LABELS) -> NDArray[np.float32]:
    """Frames that are nearly sure of one label each; '-' is the blank."""
    probabilities = np.full((len(path), len(labels)), 0.001)
    for frame, character in enumerate(path):
        probabilities[frame, labels.index("" if character == "-" else character)] = 1.0
    normalised: NDArray[np.float64] = probabilities / probabilities.sum(axis=1, keepdims=True)
    return np.log(normalised).astype(np.float32)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("aa", "a"),
        ("a-a", "aa"),
        ("a-a-a", "aaa"),
        ("-aab-b-", "abb"),
        ("-- --a-- --", " a "),
        ("a - b", "a  b"),
        ("a  b", "a b"),
        ("----", ""),
        ("a", "a"),
    ],
)
def test_repeats_blanks_and_spaces(path: str, text: str) -> None:
    decoder = CtcBeamSearchDecoder(LABELS)
    assert decoder.decode(sure(path))[0].text == text
    assert decoder.decode_greedy(sure(path)).text == text


def test_places_of_characters_and_words() -> None:
    best = CtcBeamSearchDecoder(LABELS).decode(sure("-aa-b  -ab-"))[0]
    assert [(c.text, c.first_frame, c.last_frame) for c in best.characters] == [
        ("a", 1, 2),
        ("b", 4, 4),
        (" ", 5, 6),
        ("a", 8, 8),
        ("b", 9, 9),
    ]
    assert [(w.text, w.first_frame, w.last_frame) for w in best.words] == [("ab", 1, 4), ("ab", 8, 9)]
    greedy = CtcBeamSearchDecoder(LABELS).decode_greedy(sure("-aa-b  -ab-"))
    assert [(w.text, w.first_frame, w.last_frame) for w in greedy.words] == [("ab", 1, 4), ("ab", 8, 9)]


def test_no_frames_and_one_label() -> None:
    empty = CtcBeamSearchDecoder(LABELS).decode(np.zeros((0, 4), np.float32))
    assert (empty[0].text, empty[0].score, empty[0].confidence, empty[0].characters) == ("", 0.0, 1.0, ())
    only_blank = CtcBeamSearchDecoder([""])
    assert only_blank.decode(np.zeros((3, 1), np.float32))[0].text == ""
    assert only_blank.decode_greedy(np.zeros((3, 1), np.float32)).text == ""
    assert CtcBeamSearchDecoder(LABELS).decode_greedy(np.zeros((0, 4), np.float32)).text == ""


def test_the_blank_may_stand_anywhere() -> None:
    labels = ["a", "b", ""]
    assert CtcBeamSearchDecoder(labels).decode(sure("a-ab", labels))[0].text == "aab"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_any_float_and_any_layout(dtype: str) -> None:
    decoder = CtcBeamSearchDecoder(LABELS)
    line = sure("a-a b")
    expected = decoder.decode(line)[0]
    read_only = np.asfortranarray(line.astype(dtype))
    read_only.flags.writeable = False
    for given in (line.astype(dtype), read_only, np.repeat(line, 2, axis=1)[:, ::2].astype(dtype)):
        got = decoder.decode(given)[0]
        assert got.text == expected.text
        assert got.score == pytest.approx(expected.score, abs=0.02 if np.dtype(dtype) == np.float16 else 1e-6)


def test_an_array_that_is_not_aligned() -> None:
    line = sure("a-a b")
    raw = np.zeros(line.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(line.tobytes(), np.uint8)
    crooked = np.frombuffer(raw.data, np.float32, offset=1).reshape(line.shape)
    decoder = CtcBeamSearchDecoder(LABELS)
    assert decoder.decode(crooked) == decoder.decode(line)


def with_value(value: float) -> NDArray[np.float32]:
    line = sure("a-b")
    line[1, 2] = value
    return line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (with_value(math.nan), "frame 1 has a NaN"),
        (with_value(math.inf), "frame 1 has an infinite value"),
        (with_value(2.5), r"frame 1 has the value 2\.5.*log-probability.*input"),
        (np.full((2, 4), -np.inf, np.float32), "frame 0 has no label above -inf"),
        (np.zeros((2, 3), np.float32), "3 columns, but there are 4 labels"),
        (np.zeros(4, np.float32), r"shape \(frames, labels\), got \(4,\)"),
        (np.zeros((1, 2, 4), np.float32), r"got \(1, 2, 4\)"),
        (np.zeros((2, 4), np.int64), "floating point numbers, got dtype int64"),
        (np.zeros((2, 4), np.complex64), "floating point numbers"),
    ],
)
def test_bad_arrays_are_named(given: NDArray[Any], message: str) -> None:
    decoder = CtcBeamSearchDecoder(LABELS)
    with pytest.raises(ValueError, match=message):
        decoder.decode(given)
    with pytest.raises(ValueError, match=message):
        decoder.decode_greedy(given)
    with pytest.raises(ValueError, match=rf"item 1: .*{message}"):
        decoder.decode_batch([sure("a"), given])


def test_half_precision_may_round_above_a_probability_of_one() -> None:
    decoder = CtcBeamSearchDecoder(LABELS)
    assert decoder.decode_text(with_value(0.015)) == "ab"
    with pytest.raises(ValueError, match=r"frame 1 has the value 0\.03"):
        decoder.decode_text(with_value(0.03))


def test_so_many_labels_start_prefixes_in_a_frame() -> None:
    # The last two are equal: of these the first counts.
    line = np.log(np.array([[0.1, 0.2, 0.3, 0.2]], np.float32))
    decoder = CtcBeamSearchDecoder(["", *"abc"])
    for most, texts in ((0, {"", "a", "b", "c"}), (1, {"", "b"}), (2, {"", "b", "a"}), (9, {"", *"abc"})):
        found = decoder.decode(line, BeamSearchOptions(max_tokens_per_frame=most, alternatives=9))
        assert {hypothesis.text for hypothesis in found} == texts


def test_what_is_no_array_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"numpy array .* got list"):
        CtcBeamSearchDecoder(LABELS).decode([[0.0]])  # type: ignore[arg-type]


def test_minus_infinity_is_a_probability_of_zero() -> None:
    line = sure("a-b")
    line[0, :] = -np.inf
    line[0, 2] = 0.0
    best = CtcBeamSearchDecoder(LABELS).decode(line)[0]
    assert best.text == "bb"


def test_very_small_probabilities_keep_their_order() -> None:
    line = np.full((400, 3), -600.0, np.float32)
    line[::2, 1] = -590.0
    line[1::2, 0] = -590.0
    best = CtcBeamSearchDecoder(["", "a", "b"]).decode(line)[0]
    assert best.text == "a" * 200
    assert best.acoustic_score == pytest.approx(-590.0 * 400, rel=1e-4)


def test_uniform_frames_neither_overflow_nor_hang() -> None:
    line = np.full((3000, 5), math.log(0.2), np.float32)
    best = CtcBeamSearchDecoder(["", *"abcd"], options=BeamSearchOptions(beam_width=20)).decode(line)
    assert math.isfinite(best[0].score)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "labels is empty"),
        (["a", "b"], "no blank"),
        (["", "a", ""], r"labels\[2\] is a second blank"),
        (["", "ab"], r"labels\[1\] 'ab' is not one character"),
        (["", "a", "b", "a"], r"labels\[3\] 'a' stands at labels\[1\] already"),
        (["", "\0"], r"labels\[1\] is the character 0"),
        (["", *map(chr, range(0x10000, 0x20000))], "labels has 65537 entries, at most 65535 work"),
    ],
)
def test_bad_labels_are_named(labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CtcBeamSearchDecoder(labels)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ([0.5, 0.5], r"label_priors has 2 entries, but there are \d+ labels"),
        ([math.nan] + [1.0] * (len(LABELS) - 1), r"label_priors\[0\] must be a finite number"),
        ([1.0] * (len(LABELS) - 1) + [-0.1], rf"label_priors\[{len(LABELS) - 1}\] must be a finite number"),
        ([1e308] * len(LABELS), "no usable number above 0 besides the blank's"),
        ([float(label == "") for label in LABELS], "no usable number above 0 besides the blank's"),
    ],
)
def test_bad_priors_are_named(priors: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CtcBeamSearchDecoder(LABELS, label_priors=priors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam_width": 0}, "beam_width must be at least 1, got 0$"),
        ({"beam_width": 1_000_001}, "beam_width must be at most 1000000, got 1000001"),
        ({"beam_width": 2**40}, "beam_width is out of range, got 1099511627776"),
        ({"word_bonus": 10**400}, "word_bonus is out of range, got 1000"),
        ({"beam_threshold": 1.0}, "beam_threshold must be 0 or less"),
        ({"token_threshold": math.nan}, "token_threshold must be 0 or less"),
        ({"temperature": 0.0}, "temperature must be between 0.001 and 1000, got 0$"),
        ({"temperature": math.inf}, "temperature must be between 0.001 and 1000, got inf"),
        ({"temperature": 1e-39}, "temperature must be between 0.001 and 1000, got 1e-39"),
        ({"temperature": 1e46}, r"temperature must be between 0.001 and 1000, got 1e\+46"),
        ({"word_weight": -1.0}, "word_weight must be between 0 and 1000000, got -1"),
        ({"prior_weight": math.nan}, "prior_weight must be between 0 and 1000000, got nan"),
        ({"character_weight": 1e308}, r"character_weight must be between 0 and 1000000, got 1e\+308"),
        ({"unknown_word_penalty": -1.0}, "unknown_word_penalty must be between 0 and 1000000"),
        ({"open_unknown_penalty": 1e7}, "open_unknown_penalty must be between 0 and 1000000"),
        ({"word_bonus": -1e308}, "word_bonus must be between -1000000 and 1000000"),
        ({"character_bonus": 1e308}, "character_bonus must be between -1000000 and 1000000"),
        ({"figures_weight": 1.01}, r"figures_weight must be between 0 and 1, got 1\.01"),
        ({"alternatives": 0}, "alternatives must be at least 1"),
        ({"max_tokens_per_frame": -1}, "max_tokens_per_frame"),
        ({"confidence_scale": 0.0}, "confidence_scale must be above 0"),
        ({"confidence_scale": 1e308}, "confidence_scale must be between 0 and 1000000"),
        ({"input": "probs"}, "input must be 'log_probs' or 'logits', got 'probs'"),
        ({"path_merge": "min"}, "path_merge must be"),
        ({"hotwords": ["a "]}, "hotword 'a ' is empty or begins or ends with a space"),
        ({"hotwords": {"a": math.inf}}, "boost of hotword 'a' must be between -1000000 and 1000000, got inf"),
        ({"hotwords": ["a"], "hotword_boost": 1e308}, r"boost of hotword 'a' must be .*, got 1e\+308"),
        ({"hotwords": ["a\ud800"]}, r"a hotword must be text that UTF-8 can write, got 'a\\ud800'"),
        ({"context": "\udfff"}, "context must be text that UTF-8 can write"),
        ({"closed_lexicon": True}, "closed_lexicon needs a word model or a lexicon"),
    ],
)
def test_bad_options_are_named(change: dict[str, Any], message: str) -> None:
    options = dataclasses.replace(BeamSearchOptions(), **change)
    with pytest.raises(ValueError, match=message):
        CtcBeamSearchDecoder(LABELS, options=options)
    with pytest.raises(ValueError, match=message):
        CtcBeamSearchDecoder(LABELS).decode(sure("a"), options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam_width": 2.9}, r"beam_width must be a whole number, got 2\.9"),
        ({"beam_width": Decimal("2.9")}, r"beam_width must be a whole number, got Decimal\('2\.9'\)"),
        ({"word_weight": None}, "word_weight must be a number, got None"),
        ({"open_unknown_penalty": "2"}, "open_unknown_penalty must be a number, got '2'"),
        ({"merge_histories": "no"}, "merge_histories must be True or False, got 'no'"),
        ({"allowed_characters": ["a"]}, r"allowed_characters must be a string, got \['a'\]"),
        ({"input": 1}, "input must be a string, got 1"),
    ],
)
def test_options_of_the_wrong_type_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CtcBeamSearchDecoder(LABELS, options=dataclasses.replace(BeamSearchOptions(), **change))


@pytest.mark.parametrize(
    ("hotwords", "message"),
    [
        ([b"ab"], r"a hotword must be a string or a \(string, number\) pair, got b'ab'"),
        ([("a", 1, 2)], r"\(string, number\) pair, got \('a', 1, 2\)"),
        ([None], r"\(string, number\) pair, got None"),
        ([(1, "a")], "a hotword must be a string, got 1"),
        ({"Anna": None}, "the boost of hotword 'Anna' must be a number, got None"),
        (None, "hotwords must be a sequence of words or map them to boosts, got None"),
        (3, "hotwords must be a sequence of words or map them to boosts, got 3"),
        ([("Anna", "3")], "the boost of hotword 'Anna' must be a number, got '3'"),
    ],
)
def test_hotwords_of_the_wrong_type_are_named(hotwords: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        BeamSearchOptions(hotwords=hotwords)


def test_a_boost_that_no_float_holds_is_named() -> None:
    with pytest.raises(ValueError, match="the boost of hotword 'a' is out of range, got 1000"):
        BeamSearchOptions(hotwords={"a": 10**400})


def test_boosts_may_be_any_numbers() -> None:
    pairs: Any = [["a", 1], ("b", np.float32(0.5))]
    options = BeamSearchOptions(hotwords=pairs)
    assert options.hotwords == (("a", 1.0), ("b", 0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": ["", 5]}, TypeError, r"labels\[1\] must be a string, got 5"),
        ({"labels": ["", b"a"]}, TypeError, r"labels\[1\] must be a string, got b'a'"),
        ({"labels": ["", "\ud800"]}, ValueError, r"labels\[1\] must be text that UTF-8 can write"),
        ({"word_model": "word.klm"}, TypeError, "word_model must be an NgramLanguageModel, got 'word.klm'"),
        ({"character_model": 1}, TypeError, "character_model must be an NgramLanguageModel, got 1"),
        ({"lexicon": "hello"}, ValueError, "lexicon must be a sequence of words, got the string 'hello'"),
        ({"lexicon": []}, ValueError, "lexicon is empty"),
        ({"lexicon": ["a", None]}, TypeError, r"lexicon\[1\] must be a string, got None"),
        ({"lexicon": ["a", "b\n"]}, ValueError, r"lexicon\[1\] 'b\n' is empty or has white space in it"),
        ({"lexicon": ["a b"]}, ValueError, r"lexicon\[0\] 'a b' is empty or has white space in it"),
        ({"lexicon": ["a", ""]}, ValueError, r"lexicon\[1\] '' is empty or has white space in it"),
        ({"label_priors": np.ones((4, 1))}, TypeError, r"label_priors\[0\] must be a number, got array"),
        ({"label_priors": [1.0, "a", 1.0, 1.0]}, TypeError, r"label_priors\[1\] must be a number, got 'a'"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0$"),
        ({"threads": 1025}, ValueError, "threads must be at most 1024, got 1025"),
        ({"threads": 2.5}, TypeError, r"threads must be a whole number, got 2\.5"),
        ({"threads": 2**40}, ValueError, "threads is out of range"),
        ({"options": {}}, TypeError, "options must be BeamSearchOptions, got dict"),
        ({"options": None}, TypeError, "options must be BeamSearchOptions, got NoneType"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CtcBeamSearchDecoder(**{"labels": LABELS, **arguments})


def test_the_defaults_of_cpp_are_those_of_python() -> None:
    header = Path(__file__).parents[3] / "decoder_ext" / "include" / "longhand_decoder" / "options.h"
    fields = re.findall(
        r"^    (?:int|double|bool|InputKind|PathMerge|WordSplitting) (\w+) =\s+([^;]+);",
        header.read_text(),
        re.M,
    )
    names = {"true": True, "false": False, "InputKind::kLogProbs": "log_probs", "PathMerge::kSum": "sum"}
    names["WordSplitting::kLetters"] = "letters"
    defaults = {name: names[value] if value in names else float(value) for name, value in fields}
    assert len(defaults) > 20
    del defaults["restrict_characters"]  # in Python: allowed_characters is not None
    assert defaults == {name: getattr(BeamSearchOptions(), name) for name in defaults}


def test_options_of_a_call_are_no_dictionary() -> None:
    with pytest.raises(TypeError, match="options must be BeamSearchOptions, got dict"):
        CtcBeamSearchDecoder(LABELS).decode(sure("a"), {})  # type: ignore[arg-type]


def test_a_lexicon_may_be_anything_that_holds_words() -> None:
    options = BeamSearchOptions(closed_lexicon=True, alternatives=9)
    labels = ["", *"abc"]
    line = np.log(np.full((1, 4), 0.25)).astype(np.float32)
    for lexicon in (["b", "c"], np.array(["b", "c"]), iter(["b", "c"])):
        decoder = CtcBeamSearchDecoder(labels, lexicon=lexicon, options=options)
        assert {hypothesis.text for hypothesis in decoder.decode(line)} == {"", "b", "c"}


def test_the_largest_numbers_give_finite_scores_and_leave_nothing_behind(
    word_model: NgramLanguageModel, character_model: NgramLanguageModel
) -> None:
    labels = ["", "a", "b", "c", " ", "1"]
    rng = np.random.default_rng(0)
    line = np.log(rng.dirichlet(np.ones(len(labels)), size=12)).astype(np.float32)

    def fresh() -> CtcBeamSearchDecoder:
        return CtcBeamSearchDecoder(labels, word_model=word_model, character_model=character_model)

    used, expected = fresh(), fresh().decode(line)
    for temperature, bonus, scale in itertools.product((1e-3, 1e3), (-1e6, 1e6), (1.0, 1e37)):
        options = BeamSearchOptions(
            temperature=temperature,
            input="logits",
            word_weight=1e6,
            character_weight=1e6,
            unknown_word_penalty=1e6,
            open_unknown_penalty=1e6,
            word_bonus=bonus,
            character_bonus=bonus,
            hotwords=[("ab", bonus), ("b", 1e6)],
            confidence_scale=1e6,
            alternatives=5,
        )
        for hypothesis in used.decode(np.asarray(line * scale, np.float32), options):
            assert math.isfinite(hypothesis.score)
            assert 0.0 <= hypothesis.confidence <= 1.0
        assert used.decode(line) == expected


def test_a_hotword_given_twice_counts_once() -> None:
    decoder = CtcBeamSearchDecoder(LABELS)
    once, twice = (
        decoder.decode(sure("a"), BeamSearchOptions(hotwords=hotwords))[0].score
        for hotwords in ([("a", 2.0)], [("a", 2.0), ("a", 1.0), ("a", 2.0)])
    )
    assert once == twice


def test_a_closed_lexicon_of_words_that_are_several_is_refused() -> None:
    options = BeamSearchOptions(closed_lexicon=True)
    with pytest.raises(ValueError, match="closed_lexicon: 'a,b' of the lexicon is no single word"):
        CtcBeamSearchDecoder(LABELS, lexicon=["ab", "a,b"], options=options)
    spaces = dataclasses.replace(options, word_splitting="spaces")
    labels = ["", *"ab,"]
    decoder = CtcBeamSearchDecoder(labels, lexicon=["ab", "a,b"], options=spaces)
    assert decoder.decode(sure("a,b", labels))[0].text == "a,b"


def test_a_string_is_no_list_of_hotwords() -> None:
    with pytest.raises(ValueError, match="sequence of words"):
        BeamSearchOptions(hotwords="abc")


def test_a_closed_lexicon_never_shows_half_a_word() -> None:
    decoder = CtcBeamSearchDecoder(
        ["", *"abc"], lexicon=["abc"], options=BeamSearchOptions(closed_lexicon=True)
    )
    probabilities = np.full((2, 4), 0.01)
    probabilities[0, 1] = probabilities[1, 2] = 0.97
    best = decoder.decode(np.log(probabilities).astype(np.float32))[0]
    assert best.text == ""
    assert best.acoustic_score == pytest.approx(2 * math.log(0.01), abs=1e-4)


def test_models_hold_back_what_the_network_cannot_tell(word_model: NgramLanguageModel) -> None:
    line = np.log(np.full((1, 3), 1 / 3)).astype(np.float32)
    free = CtcBeamSearchDecoder(["", "a", "c"], word_model=word_model)
    # "a" is a word and "c" is none; the beam without a model cannot choose between them.
    both = {
        h.text: h.score
        for h in free.decode(line, BeamSearchOptions(alternatives=3, unknown_word_penalty=9.0))
    }
    assert both["a"] > both["c"] + 5
