from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")
pytest.importorskip("wordfreq", reason="wordfreq is not installed (extra: training)")

from longhand_decoder import NgramLanguageModel
from longhand_training.french_text import fetch, french_paragraphs
from longhand_training.kenlm_tools import KenlmTools, default_cache, kenlm_tools
from longhand_training.language_model import ModelOptions, corpus, estimate, form_entries, word_tokens
from longhand_training.word_lists import WordList, listed_words, word_lines


def test_lists_hold_words_with_capitals_and_after_elided_articles() -> None:
    words = listed_words([WordList("fr", words=3000, capitalised=500, elided=1000)])
    assert words == sorted(set(words))
    assert {"été", "France", "maison", "Maison", "l'école", "d'école", "l'École"} <= set(words)
    # Not before a consonant, and no figures or signs.
    assert not {"l'maison", "d'France"} & set(words)
    assert all(word.replace("'", "").isalpha() for word in words)
    small = listed_words([WordList("fr", words=300, capitalised=0)])
    assert set(small) < set(words)
    assert all(word.islower() for word in small)


def test_a_language_that_there_is_no_list_of_is_an_error() -> None:
    with pytest.raises(LookupError, match="xx"):
        listed_words([WordList("xx", words=10, capitalised=0)])


def test_word_lines_hold_every_word_once_and_are_always_the_same() -> None:
    words = [f"word{i}" for i in range(25)]
    lines = list(word_lines(words))
    assert [len(line.split()) for line in lines] == [10, 10, 5]
    assert sorted(" ".join(lines).split()) == sorted(words)
    assert " ".join(lines).split() != words
    assert list(word_lines(words)) == lines


def test_french_sentences_of_a_page_are_kept_and_nothing_else() -> None:
    page = """<html><head><title>Le titre de la page que vous avez ouverte est ici</title></head><body>
    <h1>Tri</h1><p>Vous pouvez <b>trier</b> les
    lignes d&#39;un tableau et de la liste.</p><script>var le = 'la les de des du un';</script>
    <ul><li>You can sort the rows of the table and of the list.<li>Cliquez sur le bouton dans la barre
    <code>let x = 1</code> pour <em>ouvrir</em> le menu.</ul><p>le la les</body></html>"""
    assert list(french_paragraphs(page)) == [
        "Vous pouvez trier les lignes d'un tableau et de la liste.",
        "Cliquez sur le bouton dans la barre pour ouvrir le menu.",
    ]


def test_a_package_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "apt-get"
    failing.write_text("#!/bin/sh\necho E: Unable to locate package >&2\nexit 100\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        RuntimeError, match="apt-get --quiet download no-such-fr failed: E: Unable to locate package"
    ):
        fetch(("no-such-fr",), tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_texts_of_ones_own_follow_the_corpora(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("Ma première phrase.\n\nLa deuxième.\n", "utf-8")
    assert list(corpus(tmp_path, {}, [mine])) == ["Ma première phrase.", "La deuxième."]
    with pytest.raises(ValueError, match="absent"):
        list(corpus(tmp_path, {}, [tmp_path / "absent.txt"]))


def test_form_entries_hold_figures_and_addresses_and_are_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "brown.txt").write_text("The quick fox met a lazy dog .\n", "utf-8")
    entries = list(form_entries(tmp_path, 300))
    assert len(entries) == 300
    assert list(form_entries(tmp_path, 300)) == entries
    assert list(form_entries(tmp_path, 0)) == []
    addresses = [entry for entry in entries if "@" in entry]
    assert 20 < len(addresses) < 100
    assert all(re.fullmatch(r"[a-z]+[._-]?[a-z]+@[a-z]+(\.[a-z]+)+", entry) for entry in addresses)
    # Nearly every other one has figures; a code may have none.
    assert sum(any(map(str.isdigit, entry)) for entry in entries) > 0.9 * (len(entries) - len(addresses))
    assert any(re.fullmatch(r"\d+\.\d\d €", entry) for entry in entries)


def test_a_missing_text_ends_the_command_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "longhand_training.language_model", "--data", str(tmp_path)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("language_model: ")
    assert "heldout.txt.xz" in done.stderr


@pytest.fixture(scope="module")
def tools() -> KenlmTools:
    if not (default_cache() / "bin" / "lmplz").is_file():
        pytest.skip("KenLM's programs are not built here: python -m longhand_training.kenlm_tools")
    return kenlm_tools()


def test_listed_words_are_in_the_vocabulary_however_small_it_is(tools: KenlmTools, tmp_path: Path) -> None:
    sentences = ["the cat sat on the mat.", "the dog sat on the log."] * 20 + ["a zebra."]
    options = ModelOptions(order=3, prune=(0, 0, 1), vocabulary=4)
    listed = ["maison", "l'école"]
    lines = [word_tokens(text) for text in [*sentences, *word_lines(listed)]]
    out = tmp_path / "word.klm"
    estimate(tools, lines, options, out, tmp_path, listed)
    model = NgramLanguageModel(out)
    assert model.order == 3
    assert all(word in model for word in ("the", "sat", "maison", "l'école"))
    assert "zebra" not in model


def test_the_shipped_lists_exist() -> None:
    words = set(listed_words())
    assert len(words) > 100_000
    assert {"chrétienne", "démissionné", "l'arrondissement", "Warsaw"} <= words
