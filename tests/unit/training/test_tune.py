"""The search for decoder settings, on objectives whose best point is known."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_server.alphabet import Alphabet
from longhand_server.bundle import load_bundle, update_decoder
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork
from longhand_training.checkpoint import Checkpoint
from longhand_training.export import export_bundle
from longhand_training.outputs import LineOutputs
from longhand_training.tune import (
    QUICK,
    RANGES,
    WIDE,
    Objective,
    calibrate,
    main,
    mean_posteriors,
    narrow,
    search,
)


class Bowl:
    """Least at the given settings."""

    def __init__(self, **least: float) -> None:
        self.least = least

    def __call__(self, settings: Mapping[str, Any]) -> float:
        return 0.05 + sum((float(settings[name]) - value) ** 2 for name, value in self.least.items())


def test_the_search_goes_from_where_it_starts_to_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 1000)
    start = {"word_weight": 0.9, "character_weight": 0.2}
    # In five dimensions draws alone come nowhere near in a thousand trials.
    aim = {
        "word_weight": 0.3,
        "character_weight": 0.7,
        "word_bonus": 0.5,
        "temperature": 1.2,
        "prior_weight": 0.4,
    }
    best, least = search(Bowl(**aim), start, seconds=1.0)
    assert {name: best[name] for name in aim} == pytest.approx(aim, abs=0.05)
    assert least == pytest.approx(0.05, abs=0.005)
    best, _ = search(Bowl(word_weight=2.0), start, seconds=1.0)
    assert best["word_weight"] == RANGES["word_weight"][1]
    assert all(low <= best[name] <= high for name, (low, high, _) in RANGES.items())
    assert {name: best[name] for name in QUICK} == QUICK


def test_what_is_made_least_is_the_geometric_mean_of_the_sets() -> None:
    class Known(Objective):
        def __init__(self, **rates: float) -> None:
            self.known = rates

        def rates(self, settings: Mapping[str, Any]) -> dict[str, float]:
            return self.known

    assert Known(pen=0.01, ink=0.02)({}) == pytest.approx((0.01 * 0.02**2) ** (1 / 3))
    # A tenth less of a set with few errors weighs as much as a tenth less of one with many.
    assert Known(pen=0.009, copiste=0.1)({}) == pytest.approx(Known(pen=0.01, copiste=0.09)({}))
    assert Known(pen=0.0, copiste=0.1)({}) > 0


def likes(path: Path, token: str) -> Path:
    """A language model, as text, to which this token is by far the likeliest."""
    entries = "".join(
        f"{-0.1 if word == token else -3.0}\t{word}\t0.0\n" for word in ("<unk>", "<s>", "</s>", "a", "b")
    )
    path.write_text(
        f"\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n{entries}\n\\2-grams:\n-0.5\t<s> a\n\n\\end\\\n"
    )
    return path


@pytest.mark.parametrize("given", ["nothing", "word_model_path", "character_model_path", "label_priors"])
def test_settings_are_measured_with_all_that_the_model_reads_with(given: str, tmp_path: Path) -> None:
    """Frames say "a" a little more than "b"; with what is given, "b" is the better reading."""
    parts: dict[str, Any] = {"word_model_path": None, "character_model_path": None, "label_priors": None}
    if given == "label_priors":  # which only a character model needs; this one likes neither
        parts["character_model_path"] = likes(tmp_path / "model.arpa", "")
        parts[given] = (0.01, 0.45, 0.04, 0.5)
    elif given != "nothing":
        parts[given] = likes(tmp_path / "model.arpa", "b")
    bundle = SimpleNamespace(alphabet=Alphabet("ab "), **parts)
    # What is read ends in a space, which labels do not.
    probabilities = np.array([[0.01, 0.5, 0.48, 0.01], [0.01, 0.01, 0.01, 0.97]], np.float32)
    outputs = LineOutputs(("", "a", "b", " "), [np.log(probabilities)], ["b"])
    objective = Objective(cast(Any, bundle), {"own": outputs}, threads=1)
    settings = {"word_weight": 0.5, "character_weight": 0.5, "prior_weight": 1.0}
    assert objective.rates(settings) == {"own": float(given == "nothing")}


def test_confidence_is_scaled_to_be_right_as_often_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    def decode_batch(log_probs: list[object], options: Any) -> list[list[object]]:
        assert options.beam_width == 7
        return [[SimpleNamespace(text="a ", confidence=options.confidence_scale / 2)] for _ in log_probs]

    sets = {"own": SimpleNamespace(log_probs=[None] * 5, texts=["a", "a", "b", "a", "c"])}
    objective = SimpleNamespace(sets=sets, decoder=SimpleNamespace(decode_batch=decode_batch))
    assert calibrate(cast(Any, objective), {"beam_width": 7}) == {"beam_width": 7, "confidence_scale": 1.2}
    assert capsys.readouterr().out == "confidence_scale 1.2: ECE 0.000, unscaled 0.100\n"


def test_the_priors_are_means_over_frames_and_sets() -> None:
    def outputs(*frames: list[float]) -> LineOutputs:
        return LineOutputs(
            ("", "a"), [np.log(np.array([frame], np.float32)) for frame in frames], ["a"] * len(frames)
        )

    priors = mean_posteriors({"one": outputs([0.9, 0.1], [0.5, 0.5]), "other": outputs([0.1, 0.9])})
    assert priors == pytest.approx((0.4, 0.6), abs=1e-3)
    weighted = mean_posteriors({"pen": outputs([0.9, 0.1]), "ink": outputs([0.3, 0.7])})  # ink counts twice
    assert weighted == pytest.approx((0.5, 0.5), abs=1e-3)


def test_without_time_the_settings_stay() -> None:
    start = {name: (low + high) / 2 for name, (low, high, _) in RANGES.items()}
    best, _ = search(Bowl(word_weight=0.3), start, seconds=0.0)
    assert {name: best[name] for name in start} == start


def test_the_beam_is_the_least_that_costs_next_to_nothing() -> None:
    def objective(settings: Mapping[str, Any]) -> float:
        too_small: tuple[bool, ...] = (settings["beam_width"] < 50, settings["beam_threshold"] > -7)
        return 0.05 + 0.001 * sum(too_small)

    best = narrow(objective, {"word_weight": 0.3, **QUICK})
    assert best == {
        "word_weight": 0.3,
        "beam_width": 50,
        "beam_threshold": -7.0,
        "token_threshold": -4.0,
    }


def test_where_every_narrowing_costs_the_beam_stays_wide() -> None:
    wide = dict(WIDE)
    assert narrow(lambda settings: 0.05 if settings == wide else 0.06, wide) == wide


def tune(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tune", *map(str, arguments)])
    return main()


def test_a_model_is_tuned_on_lines_of_ones_own_without_the_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # no ../shared/data from here
    torch.manual_seed(0)
    config = NetworkConfig(labels=4, channels=(4, 4, 4, 4), blocks=(1, 1, 1), hidden=8, layers=1)
    checkpoint = Checkpoint(config, "ab ", LineNetwork(config).state_dict(), {}, {})
    model = tmp_path / "model"
    export_bundle(checkpoint, model, name="tiny", version="1", description="random weights")
    for name, count in (("lines", 6), ("other/lines", 2)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i in range(count):
            grey = np.full((60, 200), 255, np.uint8)
            cv2.putText(grey, "ab", (10, 42), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 0, 3)
            cv2.imwrite(str(folder / f"{i}.png"), grey)
            (folder / f"{i}.txt").write_text("ab")
    arguments = [model, "--folder", "lines", "--folder", "other/lines", "--minutes", "0", "--lines", "2"]
    assert tune(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["lines: 2 lines", "lines-2: 1 lines"]
    bundle = load_bundle(model)
    assert bundle.label_priors is not None
    assert {*RANGES, "confidence_scale"} <= set(bundle.decoder)

    # Settings that are not sought are those of the bundle, also while the others are.
    used: list[dict[str, object]] = []

    def search(
        objective: object, start: dict[str, object], seconds: float
    ) -> tuple[dict[str, object], float]:
        used.append(start)
        return start, 0.0

    monkeypatch.setattr("longhand_training.tune.search", search)
    update_decoder(
        model, {**bundle.decoder, "figures_weight": 0.35, "fold_capitals": True}, bundle.label_priors
    )
    assert tune(monkeypatch, *arguments) == 0
    assert (used[0]["figures_weight"], used[0]["fold_capitals"]) == (0.35, True)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    # Of its six lines training with --hold-out 0.5 keeps back four; with 0.1 one, which is too few.
    assert tune(monkeypatch, model, "--folder", "lines", "--minutes", "0", "--hold-out", "0.5") == 0
    assert capsys.readouterr().out.startswith("lines: 2 lines\n")
    assert tune(monkeypatch, model, "--folder", "lines", "--hold-out", "0.1") == 2
    assert "tune: lines: got 1 lines to tune on, need at least 2\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "tune: none/bundle.json: No such file or directory\n"),
        (["none", "--folder", "x"], "tune: none/bundle.json: No such file or directory\n"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tune(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == message
