"""How a caller may want an image read: the last value that is taken, and the first that is not."""

from __future__ import annotations

from typing import Any

import pytest

from longhand_server.errors import InvalidRequestError
from longhand_server.options import RecognitionOptions


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("beam_width", 1000, 1001),
        ("word_bonus", -20.0, -20.1),
        ("character_weight", 0.0, -0.1),
        ("temperature", 0.1, 0.09),
        ("alternatives", 100, 101),
        ("alternatives", 1, 0),
        ("allowed_characters", "a" * 10_000, "a" * 10_001),
        ("hotwords", (("a", 1.0),) * 1000, (("a", 1.0),) * 1001),
        ("hotwords", (("a" * 100, 1.0),), (("a" * 101, 1.0),)),
        ("hotwords", (("a b", 1.0),), (("a  b", 1.0),)),
        ("hotwords", (("a", 20.0),), (("a", 20.1),)),
        ("hotwords", (("a", 0.0),), (("a", float("nan")),)),
    ],
)
def test_bounds(name: str, taken: Any, refused: Any) -> None:
    assert getattr(RecognitionOptions(**{name: taken}), name) == taken
    with pytest.raises(InvalidRequestError) as caught:
        RecognitionOptions(**{name: refused})
    assert name in (caught.value.field or "")


def test_what_is_not_asked_for_stays_as_the_model_was_tuned() -> None:
    assert RecognitionOptions().beam_settings() == {}
    wanted: dict[str, Any] = {"word_weight": 0.0, "alternatives": 2, "allowed_characters": "a"}
    assert RecognitionOptions(**wanted).beam_settings() == wanted


def test_hotwords_are_composed() -> None:
    options = RecognitionOptions(hotwords=(("cafe\N{COMBINING ACUTE ACCENT}", 1.0),))
    assert options.hotwords == (("caf\N{LATIN SMALL LETTER E WITH ACUTE}", 1.0),)
