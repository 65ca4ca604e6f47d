from __future__ import annotations

import io
import lzma
import os
import re
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")
pytest.importorskip("wordfreq", reason="wordfreq is not installed (extra: training)")

from longhand_decoder import NgramLanguageModel, tokenize_words
from longhand_training import language_model as language_models
from longhand_training.french_text import fetch, french_paragraphs
from longhand_training.kenlm_tools import KenlmTools, default_cache, kenlm_tools
from longhand_training.language_model import (
    SPACE,
    ModelOptions,
    character_tokens,
    corpus,
    estimate,
    foreign_share,
    form_entries,
    main,
    missing_corpora,
    report,
)
from longhand_training.packs import SCAN_PACKS
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


def test_of_the_corpora_those_are_taken_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with lzma.open(tmp_path / "text" / "brown.txt.xz", "wt", encoding="utf-8") as file:
        file.write("One.\nTwo.\n")
    shares = {"inaugural": 1.0, "brown": 1.0}
    assert list(corpus(tmp_path, shares)) == ["One. Two."]
    missing = [path.name for path in missing_corpora(tmp_path, shares)]
    assert missing == ["inaugural.txt.xz", "copiste_lines.tar", "historical_lines.tar"]


def test_of_a_corpus_its_share_is_taken_and_of_the_scans_what_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with lzma.open(tmp_path / "text" / "brown.txt.xz", "wt", encoding="utf-8") as file:
        file.writelines(f"{i}.\n" for i in range(17))
    with tarfile.open(tmp_path / SCAN_PACKS[0], "w") as pack:
        for split in ("train", "validation"):
            for name, content in ((f"{split}.tsv", f"{split}/0\t{split}\n".encode()), (f"{split}/0", b"")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                pack.addfile(info, io.BytesIO(content))
    assert list(corpus(tmp_path, {"brown": 0.5})) == ["4. 5. 6. 7.", "12. 13. 14. 15.", "16.", "train"]
    assert list(corpus(tmp_path, {"brown": 0.0})) == ["train"]


def test_kenlm_is_told_what_is_to_be_dropped(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    tool.chmod(0o755)
    estimate(KenlmTools(tool, tool), [["a", "b"]], ModelOptions((0, 0, 1)), tmp_path / "out.klm", tmp_path)
    estimated, packed = (tmp_path / "told").read_text().splitlines()
    assert estimated.startswith("-o 3 ")
    assert estimated.endswith(" --prune 0 0 1")
    assert packed == f"-q 8 -b 8 -a 22 trie {tmp_path}/model.arpa {tmp_path}/out.klm"


def test_spaces_are_tokens_of_the_character_model() -> None:
    assert character_tokens("a bé", "ab ") == ["a", SPACE, "b"]


def test_perplexity_counts_the_end_of_each_sentence_and_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    entries = "-2\t<unk>\t0\n-9\t<s>\t0\n-0.25\t</s>\t0\n-0.5\ta\t0\n-1\tb\t0\n"
    path.write_text(
        f"\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n{entries}\n\\2-grams:\n-0.3\t<s> a\n\n\\end\\\n"
    )
    # 10 to the power of (0.3 + 1 + 0.25) + (2 + 0.25), by five tokens of which one is unknown.
    assert report(path, [["a", "b"], ["c"]]).endswith(
        "order 2, perplexity 5.8, out of vocabulary 33.33 %, on 2 held-out sentences"
    )


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


def test_without_corpora_form_entries_take_their_words_from_the_passages(tmp_path: Path) -> None:
    entries = list(form_entries(tmp_path, 100, passages=iter(["zebra"])))
    assert any("zebra" in entry for entry in entries)
    text = tmp_path / "mine.txt"
    text.write_text("yak\n", "utf-8")
    entries = list(form_entries(tmp_path, 100, [text], iter(["zebra"])))
    assert any("yak" in entry for entry in entries)
    assert not any("zebra" in entry for entry in entries)


def build(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["language_model", *map(str, arguments)])
    return main()


def no_tools() -> KenlmTools:
    pytest.fail("minutes are spent before the texts are looked at")


def test_texts_are_looked_at_before_anything_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("longhand_training.language_model.kenlm_tools", no_tools)
    good, latin, greek = (tmp_path / f"{name}.txt" for name in ("good", "latin", "greek"))
    greek.write_text("καλή γραφή.\n", "utf-8")
    good.write_text("Good.\n")
    latin.write_bytes(b"Plain.\n" * 9 + "caf\u00e9\n".encode("latin-1"))
    base = ["--data", tmp_path, "--out", tmp_path / "out"]
    for arguments, message in (
        ([], f"no text to learn from: {tmp_path} holds no corpus, and no --text is named"),
        (["--text", good, "--text", latin], f"{latin}: not a readable text: 'utf-8' codec"),
        (["--text", tmp_path / "absent.txt"], "absent.txt: not a readable text: [Errno 2]"),
        (
            ["--text", good, "--held-out", tmp_path / "absent.txt"],
            "absent.txt: not a readable text: [Errno 2]",
        ),
        (["--text", good, "--word-prune", "0"], "--word-prune: got 0, need 2 to 6 whole numbers from 0 on"),
        (["--text", good, "--char-prune", "0", "2", "1"], "--char-prune: got 0 2 1, need 2 to 6 whole"),
        (["--text", good, "--char-prune", "-1", "0"], "--char-prune: got -1 0, need 2 to 6 whole"),
        (
            ["--text", greek],
            f"--text {greek}: 82 % of its characters are not in the alphabet; name a text with the right ones "
            "(--characters)",
        ),
    ):
        assert build(monkeypatch, *base, *arguments) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("language_model: ")
        assert message in last
    assert not (tmp_path / "out").exists()


def test_models_are_estimated_from_all_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").mkdir()
    with lzma.open(tmp_path / "text" / "standardebooks_fiction.txt.xz", "wt", encoding="utf-8") as file:
        file.writelines(f"novel {i}.\n" for i in range(40))
    named = {name: tmp_path / f"{name}.txt" for name in ("text", "corpus", "held-out")}
    for name, path in named.items():
        path.write_text(f"{name}, line.\n")
    made: dict[str, tuple[list[list[str]], ModelOptions, set[str]]] = {}
    measured: dict[str, list[list[str]]] = {}

    def estimate(
        _: object,
        sentences: Iterable[list[str]],
        options: ModelOptions,
        out: Path,
        work: Path,
        kept: set[str],
    ) -> None:
        made[out.name] = list(sentences), options, kept

    def report(path: Path, sentences: list[list[str]]) -> str:
        measured[path.name] = sentences
        return ""

    monkeypatch.setattr(language_models, "kenlm_tools", lambda: None)
    monkeypatch.setattr(language_models, "estimate", estimate)
    monkeypatch.setattr(language_models, "report", report)
    arguments = ["--data", tmp_path, "--out", tmp_path, "--no-word-lists", "--form-entries", 7]
    arguments += ["--fiction", 0.25, "--word-vocabulary", 9, "--word-prune", 0, 1, "--char-prune", 0, 2]
    for name, path in named.items():
        arguments += [f"--{name}", path]
    assert build(monkeypatch, *arguments) == 0
    sentences, options, kept = made["word.klm"]
    assert (options, kept) == (ModelOptions((0, 1), 9), {"text", ",", "line", "."})
    assert [sentence[0] for sentence in sentences[:4]] == [
        "novel",
        "novel",
        "corpus",
        "text",
    ]  # 2 of 10 passages
    assert len(sentences) == 4 + 7
    sentences, options, _ = made["char.klm"]
    assert options == ModelOptions((0, 2))
    assert "".join(sentences[2]) == f"corpus,{SPACE}line."
    assert measured["word.klm"] == [["held", "-", "out", ",", "line", "."]]
    assert "".join(measured["char.klm"][0]) == f"held-out,{SPACE}line."


def test_characters_that_an_alphabet_lacks_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("aaaaaaaaβββγ" * 3, "utf-8")
    assert foreign_share(text, "aβγ") == 0
    assert capsys.readouterr().err == ""
    assert foreign_share(text, "a") == pytest.approx(1 / 3)
    assert capsys.readouterr().err == (
        f"{text}: 33.3 % of its characters are not in the alphabet, and left out: β γ\n"
    )


def test_no_text_at_all_is_not_left_to_kenlm_to_say(tmp_path: Path) -> None:
    nowhere = KenlmTools(tmp_path / "lmplz", tmp_path / "build_binary")
    with pytest.raises(ValueError, match=r"no text to learn char\.klm from"):
        estimate(nowhere, [[], []], ModelOptions((0, 0)), tmp_path / "char.klm", tmp_path)


@pytest.fixture(scope="module")
def tools() -> KenlmTools:
    if not (default_cache() / "bin" / "lmplz").is_file():
        pytest.skip("KenLM's programs are not built here: python -m longhand_training.kenlm_tools")
    return kenlm_tools()


def test_listed_words_are_in_the_vocabulary_however_small_it_is(tools: KenlmTools, tmp_path: Path) -> None:
    sentences = ["the cat sat on the mat.", "the dog sat on the log."] * 20 + ["a zebra."]
    options = ModelOptions(prune=(0, 0, 1), vocabulary=4)
    listed = ["maison", "l'école"]
    lines = [tokenize_words(text) for text in [*sentences, *word_lines(listed)]]
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


def test_every_word_of_ones_own_text_is_known_without_the_packs(
    tools: KenlmTools,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, other, out = tmp_path / "mine.txt", tmp_path / "other.txt", tmp_path / "lm"
    mine.write_text("the cat sat on the mat.\n" * 30 + "Przybyła Bukowskiżnik, łagodnie.\n", "utf-8")
    other.write_text("the cat sat.\n")
    (tmp_path / "characters.txt").write_text("abcdefghijklmnoprstuwyzłżBP.,\n", "utf-8")
    arguments = ["--data", tmp_path / "none", "--out", out, "--text", mine, "--no-word-lists"]
    arguments += [
        "--form-entries",
        "20",
        "--word-vocabulary",
        "3",
        "--characters",
        tmp_path / "characters.txt",
    ]
    assert build(monkeypatch, *arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == f"not there, left out: every corpus of {tmp_path}/none\n"
    assert printed.out.count("perplexity not measured: no held-out text (--held-out)") == 2
    word, character = NgramLanguageModel(out / "word.klm"), NgramLanguageModel(out / "char.klm")
    assert all(token in word for token in ("cat", "Bukowskiżnik", "łagodnie"))
    assert {"ł", "ż", "B"} <= {sign for sign in "łżBé£7" if sign in character}
    assert not {"é", "£", "7"} & {sign for sign in "łżBé£7" if sign in character}
    assert build(monkeypatch, *arguments, "--held-out", other, "--only", "word") == 0
    assert re.search(r"perplexity \d+\.\d, out of vocabulary 0\.00 %, on 1 held-out", capsys.readouterr().out)
