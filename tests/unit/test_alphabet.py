from __future__ import annotations

import pytest

from longhand_server.alphabet import Alphabet, fold_text


@pytest.mark.parametrize(
    ("raw", "folded"),
    [
        ("don\u2019t \u201cgo\u201d", 'don\'t "go"'),
        ("a \u2013 b\u2014c", "a - b-c"),
        ("wait\u2026", "wait..."),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("  two\u00a0 words\t", "two words"),
        ("\u00abmot\u00bb", '"mot"'),
        ("", ""),
    ],
)
def test_folding_writes_typographic_variants_one_way(raw: str, folded: str) -> None:
    assert fold_text(raw) == folded
    assert fold_text(folded) == folded


def test_label_zero_is_the_blank_and_ids_round_trip() -> None:
    alphabet = Alphabet("ab c")
    assert alphabet.labels == ("", "a", "b", " ", "c")
    assert len(alphabet) == 5
    assert alphabet.encode("cab") == [4, 1, 2]
    assert alphabet.decode([4, 0, 1, 1, 2]) == "caab"
    assert "b" in alphabet
    assert "z" not in alphabet


@pytest.mark.parametrize("characters", [["a", "a"], ["ab"], [""]])
def test_an_alphabet_has_distinct_single_characters(characters: list[str]) -> None:
    with pytest.raises(ValueError, match="alphabet"):
        Alphabet(characters)


def test_an_unknown_character_is_named() -> None:
    with pytest.raises(ValueError, match="'z'"):
        Alphabet("ab").encode("az")
