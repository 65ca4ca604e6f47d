from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from longhand_training import card

SHIPPED = Path(card.__file__).parents[2] / "server/longhand_server/models/en"

CARD = """# Model card: `old` 0

Written by hand.
<!-- figures: begin -->
| stale |
<!-- figures: end -->
More by hand.
"""


def figures(**left_out: None) -> dict[str, Any]:
    reading = {
        "cer": 0.0909,
        "cer_low": 0.08,
        "cer_high": 0.1,
        "wer": 0.25,
        "line_accuracy": 0.5,
        "lines": 596,
        "ece": 0.07,
    }
    settings = {name: reading for name in ("greedy", "word", "character", "both") if name not in left_out}
    return {"model": "en", "version": "1.2.3", "sets": {"pen": settings}}


def test_only_heading_and_figures_change() -> None:
    text = card.renewed(CARD, figures())
    assert text.startswith("# Model card: `en` 1.2.3\n\nWritten by hand.\n")
    assert text.endswith("<!-- figures: end -->\nMore by hand.\n")
    assert "stale" not in text
    assert "| IAM-OnDB, drawn plainly | 596 | 9.1 (8.0-10.0) |" in text
    assert card.renewed(text, figures()) == text


def test_a_card_without_marks_and_a_setting_not_read_are_named() -> None:
    with pytest.raises(ValueError, match="no place for the figures"):
        card.renewed("# Model card", figures())
    with pytest.raises(ValueError, match=r"'pen' was not read with \['word'\]"):
        card.renewed(CARD, figures(word=None))


def test_the_shipped_card_shows_the_shipped_figures() -> None:
    if not SHIPPED.exists():
        pytest.skip("not a checkout: the shipped model lies elsewhere")
    text = (SHIPPED / "MODEL_CARD.md").read_text("utf-8")
    assert card.renewed(text, json.loads((SHIPPED / "accuracy.txt").read_text("utf-8"))) == text


def test_figures_of_a_model_without_language_models_make_a_table_too() -> None:
    content = figures(word=None, character=None, both=None)
    content["sets"]["pen"]["beam"] = content["sets"]["pen"]["greedy"]
    heading, _, row = card.table(content, ["greedy", "beam"]).splitlines()
    assert heading == (
        "| validation lines | lines | greedy | beam search | WER, beam search | lines right, beam search "
        "| ECE, beam search |"
    )
    assert row.count("|") == heading.count("|")


def test_a_bundle_without_a_card_gets_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not SHIPPED.exists():
        pytest.skip("not a checkout: the shipped model lies elsewhere")
    bundle = tmp_path / "mine"
    shutil.copytree(SHIPPED, bundle, ignore=shutil.ignore_patterns("MODEL_CARD.md", "accuracy.txt"))
    accuracy = tmp_path / "accuracy.txt"
    version = json.loads((bundle / "bundle.json").read_text("utf-8"))["version"]
    accuracy.write_text(json.dumps({**figures(), "version": version}))
    monkeypatch.setattr(sys, "argv", ["card", str(bundle), str(accuracy)])
    assert card.main() == 0
    text = (bundle / "MODEL_CARD.md").read_text("utf-8")
    assert text.startswith(f"# Model card: `en` {version}\n")
    assert "Nobody has written this card yet" in text
    assert "| IAM-OnDB, drawn plainly | 596 | 9.1 (8.0-10.0) |" in text
    assert (bundle / "accuracy.txt").read_bytes() == accuracy.read_bytes()
    # What is written by hand from then on stays.
    (bundle / "MODEL_CARD.md").write_text(text + "By hand.\n", "utf-8")
    assert card.main() == 0
    assert (bundle / "MODEL_CARD.md").read_text("utf-8") == text + "By hand.\n"

    capsys.readouterr()
    accuracy.write_text(json.dumps(figures()))
    assert card.main() == 2
    assert f"has figures of en 1.2.3, and {bundle} is en {version}\n" in capsys.readouterr().err
    accuracy.write_text(json.dumps({"sets": figures()["sets"]}))
    assert card.main() == 2
    assert capsys.readouterr().err == f"card: {accuracy}: holds no figure 'model'\n"
    for other in ("set\tfile\n", "[]", json.dumps({**figures(), "version": version, "sets": []})):
        accuracy.write_text(other)
        assert card.main() == 2
        said = capsys.readouterr().err
        assert said.startswith(f"card: {accuracy}: is no accuracy.txt")
        assert said.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["card", str(tmp_path / "none"), str(accuracy)])
    assert card.main() == 2
    assert "none/bundle.json: No such file" in capsys.readouterr().err
