from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longhand_training import card

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
    bundle = Path(card.__file__).parents[2] / "server/longhand_server/models/en"
    if not bundle.exists():
        pytest.skip("not a checkout: the shipped model lies elsewhere")
    text = (bundle / "MODEL_CARD.md").read_text("utf-8")
    assert card.renewed(text, json.loads((bundle / "accuracy.txt").read_text("utf-8"))) == text
