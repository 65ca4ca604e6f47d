"""Loading language models, good and bad, and what they say."""

from __future__ import annotations

import math
import os
import re
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.ctc_oracle import word_tokens
from helpers.kenlm_binaries import BINARY_KINDS, build_binary
from helpers.tiny_ngram import random_ngram
from longhand_decoder import (
    BeamSearchOptions,
    CtcBeamSearchDecoder,
    LanguageModelError,
    NgramLanguageModel,
    tokenize_words,
)


@settings(max_examples=300, deadline=None)
@given(st.text("aé'’, .1२B\u0301-\n", max_size=12) | st.text(max_size=8))
def test_tokens_are_those_of_the_oracle(text: str) -> None:
    assert tokenize_words(text) == word_tokens(text)


def test_scores_are_kenlms(word_arpa: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="the yardstick kenlm is not installed")
    ours, theirs = NgramLanguageModel(word_arpa), kenlm.Model(str(word_arpa))
    rng = np.random.default_rng(3)
    for _ in range(50):
        tokens = [str(t) for t in rng.choice(["a", "b", "ab", "cab", ",", "zebra"], size=rng.integers(0, 6))]
        for bos, eos in ((False, False), (True, True), (True, False), (False, True)):
            expected = theirs.score(" ".join(tokens), bos=bos, eos=eos) * math.log(10)
            assert ours.score(tokens, bos=bos, eos=eos) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", BINARY_KINDS, ids=" ".join)
def test_every_binary_kind_says_what_the_text_says(
    kind: tuple[str, ...], word_arpa: Path, tmp_path: Path
) -> None:
    text = NgramLanguageModel(word_arpa)
    path = build_binary(word_arpa, tmp_path / "model.klm", kind)
    binary = NgramLanguageModel(path)
    assert (binary.order, len(binary)) == (text.order, len(text))
    for tokens in (["a"], ["ab", ",", "cab"], ["zebra", "a'b"], []):
        expected = text.score(tokens, bos=True, eos=True)
        assert binary.score(tokens, bos=True, eos=True) == pytest.approx(
            expected, abs=0.2 if "-q" in kind else 1e-4
        )
    content = path.read_bytes()
    for length in {0, 10, 60, 100, len(content) // 2, len(content) - 40}:
        path.with_suffix(".cut").write_bytes(content[:length])
        with pytest.raises(LanguageModelError, match=r"model\.cut"):
            NgramLanguageModel(path.with_suffix(".cut"))


@pytest.mark.parametrize("kind", BINARY_KINDS, ids=" ".join)
def test_a_damaged_word_of_a_binary_vocabulary_is_refused(
    kind: tuple[str, ...], word_arpa: Path, tmp_path: Path
) -> None:
    content = build_binary(word_arpa, tmp_path / "good.klm", kind).read_bytes()
    words = content.rindex(b"<unk>\0")
    damaged = tmp_path / "damaged.klm"
    for place in range(words, len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            damaged.write_bytes(changed)
            with pytest.raises(LanguageModelError, match=r"damaged\.klm"):
                NgramLanguageModel(damaged)


@pytest.mark.parametrize(
    ("kind", "place", "value", "message"),
    [
        # Behind the magic string and the numbers that KenLM compares: order, multiplier, type, vocabulary, counts.
        ("probing", 88, b"\x01", "order 1, needed 2 to 6"),
        ("probing", 88, b"\x07", "order 7, needed 2 to 6"),
        ("probing", 92, struct.pack("f", 0.5), "probing multiplier 0.5"),
        ("probing", 92, struct.pack("f", 1.4), "the vocabulary is not where it should be"),
        ("probing", 96, struct.pack("I", 6), "model type 6"),
        ("probing", 100, b"\x02", "no yes or no about the vocabulary"),
        ("probing", 116, struct.pack("Q", 10**12), "1000000000000 n-grams in [0-9]+ bytes"),
        ("trie", 136, struct.pack("Q", 13), "13 words in the vocabulary"),
    ],
)
def test_a_damaged_head_is_refused_before_it_is_believed(
    kind: str, place: int, value: bytes, message: str, word_arpa: Path, tmp_path: Path
) -> None:
    path = build_binary(word_arpa, tmp_path / "model.klm", (kind,))
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    damaged = tmp_path / "damaged.klm"
    damaged.write_bytes(content)
    with pytest.raises(LanguageModelError, match=f"its header is damaged: {message}"):
        NgramLanguageModel(damaged)


def test_threads_that_need_the_vocabulary_at_once(word_arpa: Path) -> None:
    labels = ["", "a", "b", "c"]
    line = np.log(np.random.default_rng(0).dirichlet(np.ones(4), size=9)).astype(np.float32)
    for _ in range(10):
        model = NgramLanguageModel(word_arpa)
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(CtcBeamSearchDecoder, labels, word_model=model) for _ in range(4)]
        texts = [decoder.result().decode(line) for decoder in made]
        assert texts == [texts[0]] * 4


def test_what_it_says_of_itself(word_model: NgramLanguageModel, word_arpa: Path) -> None:
    assert word_model.order == 3
    assert word_model.path == str(word_arpa)
    assert len(word_model) == 9
    assert "cab" in word_model
    assert "zebra" not in word_model
    assert "order 3" in repr(word_model)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.arpa"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(LanguageModelError, match=f"{path}: it is no regular file"):
            NgramLanguageModel(path)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(LanguageModelError, match=r"/nowhere/word\.klm"):
        NgramLanguageModel("/nowhere/word.klm")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"this is no model\n",
        b"\\data\\\n",
        b"\\data\\\nngram 1=3\n\n\\1-grams:\n-1\t<unk>\n-1\t<s>\t-1\n\n\\end\\\n",
        b"\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\nx\ta\t0\n\n\\2-grams:\n-1\ta a\n\n\\end\\\n",
        b"\\data\\\nngram 1=99999999999999\nngram 2=1\n\n\\1-grams:\n",
        b"\\data\\\nngram 1=3\nngram 2=-3\n\n\\1-grams:\n-1\t<unk>\n-1\t<s>\t-1\n-1\ta\t0\n\n\\end\\\n",
        b"\\data\\\nngram 1=3\nngram 2=18446744073709551615\n\n\\1-grams:\n-1\t<unk>\n",
        b"\\data\\\nngram 2=1\nngram 1=1\n\n",
        b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(200),
        bytes(range(256)) * 40,
    ],
)
def test_files_that_are_no_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.arpa"
    path.write_bytes(content)
    with pytest.raises(LanguageModelError) as caught:
        NgramLanguageModel(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_order_that_is_too_high(tmp_path: Path) -> None:
    path = random_ngram(["a"], 7, 1).write_arpa(tmp_path / "seven.arpa")
    with pytest.raises(LanguageModelError, match=r"order 7"):
        NgramLanguageModel(path)


def test_a_vocabulary_that_is_not_utf8(tmp_path: Path) -> None:
    good = random_ngram(["a", "ÿ"], 2, 1).write_arpa(tmp_path / "good.arpa").read_bytes()
    bad = tmp_path / "bad.arpa"
    bad.write_bytes(good.replace("ÿ".encode(), b"\xff"))
    with pytest.raises(LanguageModelError, match="UTF-8"):
        NgramLanguageModel(bad)


def test_the_message_says_what_is_wrong_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "bad.arpa"
    path.write_text(
        "\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\n-1\ta\t0\n\n\\2-grams:\n-1\ta b\n\n\\end\\\n"
    )
    with pytest.raises(LanguageModelError) as caught:
        NgramLanguageModel(path)
    message = str(caught.value)
    assert message.startswith(f"cannot load the language model {path}: Word b was not seen in the unigrams")
    assert "threw" not in message


def test_lines_end_as_on_windows_and_special_words_may_lack(tmp_path: Path) -> None:
    text = "\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-1\ta\t-0.5\n-2\tb\n\n\\2-grams:\n-0.25\ta b\n\n\\end\\\n"
    path = tmp_path / "short.arpa"
    path.write_text(text)
    model = NgramLanguageModel(path)
    assert model.score(["a", "b"]) == pytest.approx(-1.25 * math.log(10), abs=1e-5)


def test_more_n_grams_than_the_file_can_hold_are_refused_before_room_is_made(tmp_path: Path) -> None:
    good = random_ngram(["a"], 2, 1).write_arpa(tmp_path / "good.arpa").read_text()
    bad = tmp_path / "bad.arpa"
    for count in ("-3", "400000000", "18446744073709551613"):
        bad.write_text("# a comment\n\n" + re.sub("ngram 2=.*", f"ngram 2={count}", good))
        with pytest.raises(
            LanguageModelError, match=f"'ngram 2={count}' cannot be: the file has [0-9]+ bytes"
        ):
            NgramLanguageModel(bad)


@pytest.mark.parametrize("probability", ["-inf", "-1e300"])
def test_a_probability_of_zero_leaves_numbers_behind(probability: str, tmp_path: Path) -> None:
    path = random_ngram(["a", "b"], 2, 1).write_arpa(tmp_path / "zero.arpa")
    path.write_text(re.sub("[^\\t\\n]+\\ta\\t", f"{probability}\ta\t", path.read_text()))
    model = NgramLanguageModel(path)
    assert model.score(["a", "a"]) < -9e3
    assert math.isfinite(model.score(["a", "a"]))
    decoder = CtcBeamSearchDecoder(["", "a", "b", "1", " "], word_model=model, character_model=model)
    line = np.log(np.random.default_rng(0).dirichlet(np.ones(5), size=9)).astype(np.float32)
    for figures_weight in (0.0, 1.0):
        found = decoder.decode(line, BeamSearchOptions(alternatives=50, figures_weight=figures_weight))
        numbers = [(h.score, h.confidence, *(c.confidence for c in h.characters)) for h in found]
        assert all(math.isfinite(number) for row in numbers for number in row)
        assert sum(h.confidence for h in found) == pytest.approx(1.0)


def test_a_path_need_not_be_utf8(word_arpa: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.arpa")
    shutil.copy(word_arpa, path)
    model = NgramLanguageModel(path)
    assert model.path == path
    assert path in repr(model)
