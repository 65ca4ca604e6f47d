"""The command that measures a model: which settings it takes, what it writes, how it fails."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_server import bundle as bundles
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import load_bundle
from longhand_server.config import LineFormat, NetworkConfig
from longhand_server.network import LineNetwork
from longhand_training import evaluate
from longhand_training.checkpoint import Checkpoint
from longhand_training.dataset import Sample
from longhand_training.export import export_bundle
from longhand_training.line_sets import held_out_samples
from longhand_training.outputs import LineOutputs

SHIPPED = Path(bundles.__file__).parent / "models/en"
SAMPLE = Path(__file__).resolve().parents[3] / "examples/sample_line.png"
TEXT = "This line was written by hand and read by a machine."


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without language models."""
    directory = tmp_path_factory.mktemp("plain")
    alphabet = Alphabet("abcdef ")
    config = NetworkConfig(labels=len(alphabet), channels=(4, 8, 8, 16), hidden=24)
    weights = LineNetwork(config).state_dict()
    checkpoint = Checkpoint(config, "".join(alphabet.characters), weights, {}, {"seed": 1})
    export_bundle(checkpoint, directory, name="plain", version="1", description="for a test")
    return directory


def lines_in(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / f"{name}.png").write_bytes(SAMPLE.read_bytes())
        (folder / f"{name}.txt").write_text(text, "utf-8")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    return evaluate.main()


def table(path: Path) -> list[list[str]]:
    return [row.split("\t") for row in path.read_text("utf-8").splitlines()]


def test_a_model_without_language_models_is_read_greedily_and_by_beam_search(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lines_in(tmp_path / "lines", one="abc")
    assert run(monkeypatch, plain, "--folder", folder, "--out", tmp_path) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "accuracy.txt").read_text())
    assert list(figures["sets"]["lines"]) == ["greedy", "beam"]
    assert run(monkeypatch, plain, "--folder", folder, "--decoder", "both", "--out", tmp_path) == 2
    assert "has no word model, which --decoder both needs" in capsys.readouterr().err


def test_settings_follow_from_the_language_models(plain: Path) -> None:
    whole = load_bundle(SHIPPED)
    assert evaluate.possible_settings(whole) == ("greedy", "word", "character", "both")
    assert evaluate.possible_settings(load_bundle(plain)) == ("greedy", "beam")
    for lacking, kept in (("word", "character"), ("character", "word")):
        one = type(whole)(**{**vars(whole), f"{lacking}_model_path": None})
        assert evaluate.possible_settings(one) == ("greedy", kept)


@pytest.mark.parametrize(
    ("setting", "models"),
    [
        ("greedy", (False, False)),
        ("beam", (False, False)),
        ("word", (True, False)),
        ("character", (False, True)),
        ("both", (True, True)),
    ],
)
def test_a_setting_reads_with_its_language_models_alone(
    setting: str, models: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "Recognizer", lambda bundle, *_, **__: bundle)
    bundle: Any = evaluate.make_recognizer(load_bundle(SHIPPED), cast(Any, None), setting)
    assert (bundle.word_model_path is not None, bundle.character_model_path is not None) == models


def test_folders_of_one_name_are_measured_both_and_every_line_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lines_in(tmp_path / "a" / "lines", good=TEXT, wrong=f"{TEXT}!")
    second = lines_in(tmp_path / "b" / "lines", other=TEXT)
    out = tmp_path / "out"
    arguments: Sequence[object] = ["--folder", first, "--folder", second, "--decoder", "greedy", "--out", out]
    assert run(monkeypatch, SHIPPED, *arguments, "--dump-log-probs", out / "raw" / "outputs.npz") == 0
    for name, texts in (("lines", [TEXT, f"{TEXT}!"]), ("lines-2", [TEXT])):
        assert LineOutputs.load(out / "raw" / f"outputs-{name}.npz").texts == texts
    sets = json.loads((out / "accuracy.txt").read_text())["sets"]
    assert {name: figures["greedy"]["lines"] for name, figures in sets.items()} == {"lines": 2, "lines-2": 1}
    assert {path.name for path in out.glob("worst-*.html")} == {"worst-lines.html", "worst-lines-2.html"}
    head, *rows = table(out / "readings.tsv")
    assert head == ["set", "file", "CER", "reference", "reading"]
    assert [row[:2] for row in rows] == [
        ["lines", "lines/good.png"],
        ["lines", "lines/wrong.png"],
        ["lines-2", "lines/other.png"],
    ]
    # The page of the worst lines has those that hold errors, each with its file.
    pages = [(out / f"worst-{name}.html").read_text("utf-8") for name in ("lines", "lines-2")]
    assert [page.count("<img") for page in pages] == [1, 0]
    assert "(1 errors, lines/wrong.png)" in pages[0]
    for _, _, rate, reference, reading in rows:
        assert rate == f"{(reference != reading) / len(reference):.4f}"  # nothing, or one sign, is wrong
        assert reading == TEXT


def test_lines_get_a_second_look_unless_told_otherwise(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    make = evaluate.make_recognizer

    def noted(*arguments: Any, second_look: bool, **others: Any) -> Any:
        looks.append(second_look)
        return make(*arguments, second_look=second_look, **others)

    monkeypatch.setattr(evaluate, "make_recognizer", noted)
    folder = lines_in(tmp_path / "lines", one="abc")
    for option in ((), ("--one-look",)):
        assert (
            run(monkeypatch, plain, "--folder", folder, "--decoder", "beam", "--out", tmp_path, *option) == 0
        )
    assert looks == [True, False]


def test_names_that_a_table_cannot_hold_are_written_escaped(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lines_in(
        tmp_path / os.fsdecode(b"r\xe9cit"), **{os.fsdecode(b"caf\xe9"): "abc", "a\tb\nc": "abc"}
    )
    assert run(monkeypatch, plain, "--folder", folder, "--out", tmp_path) == 0
    rows = table(tmp_path / "readings.tsv")[1:]
    assert [row[:2] for row in rows] == [
        [r"r\udce9cit", r"r\udce9cit/a\tb\nc.png"],
        [r"r\udce9cit", r"r\udce9cit/caf\udce9.png"],
    ]
    assert r"caf\udce9.png)" in (tmp_path / r"worst-r\udce9cit.html").read_text("utf-8")


def test_lines_that_were_held_out_are_measured_alone(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lines_in(tmp_path / "lines", **{f"line{i}": "abc" for i in range(20)})
    arguments: Sequence[object] = ["--folder", folder, "--hold-out", "0.3", "--out", tmp_path]
    assert run(monkeypatch, plain, *arguments) == 0
    held_out = [sample.name for sample in held_out_samples(folder, LineFormat(), 0.3)]
    assert 0 < len(held_out) < 20
    assert [row[1] for row in table(tmp_path / "readings.tsv")[1:]] == held_out
    single = lines_in(tmp_path / "single", one="abc")
    assert run(monkeypatch, plain, "--folder", single, "--hold-out", "0.1", "--out", tmp_path) == 2
    assert f"evaluate: {single}: none of its lines is held out" in capsys.readouterr().err


class Echo:
    """Reads of each line the number that its pixels hold and the one that its outputs hold."""

    def __init__(self) -> None:
        self.greedy: set[bool | None] = set()

    def transcribe(
        self, images: Sequence[Any], log_probs: Sequence[Any], _: float, options: Sequence[Any]
    ) -> list[SimpleNamespace]:
        self.greedy |= {option.greedy for option in options}
        return [
            SimpleNamespace(text=f"Line {image.pixels[0, 0]:g} {row[0, 0]:g}", confidence=0.9)
            for image, row in zip(images, log_probs, strict=True)
        ]


@pytest.mark.parametrize("setting", ["greedy", "both"])
def test_each_line_is_read_from_its_own_outputs_and_counts_as_right_only_if_all_is(setting: str) -> None:
    count = 150  # more than are read at once
    samples = [Sample(np.full((64, 8), i, np.float32), f"Line {i} {i}") for i in range(count)]
    texts = [sample.text if i % 2 else sample.text.lower() for i, sample in enumerate(samples)]
    outputs = LineOutputs(("", "a"), [np.full((2, 2), i, np.float32) for i in range(count)], texts)
    recognizer = Echo()
    reading = evaluate.read_outputs(cast(Any, recognizer), samples, outputs, setting)
    assert reading.texts == [sample.text for sample in samples]
    assert recognizer.greedy == {setting == "greedy"}
    assert reading.rates.line_accuracy == 0.5
    assert reading.calibration_error == pytest.approx(0.4)
    figures = reading.figures()
    assert figures["cer_low"] < figures["cer"] < figures["cer_high"]


def test_the_worst_lines_come_first_as_dark_ink_and_none_of_their_text_is_markup() -> None:
    pixels = np.zeros((64, 16), np.float32)
    pixels[20:40, 4:8] = 1
    samples = [Sample(pixels, text, f"{i}.png") for i, text in enumerate(("ab", "a<b>c", "right"))]
    page = evaluate.worst_sheet(samples, ["axy", "<i>", "right"])
    first, second = page.split("<p>")[1:]
    assert (
        "<b><mark>a</mark>&lt;<mark>b</mark>&gt;<mark>c</mark></b><br>"
        "&lt;<mark>i</mark>&gt; <small>(3 errors, 1.png)" in first
    )
    assert "<b>a<mark>b</mark></b><br>a<mark>xy</mark> <small>(2 errors, 0.png)" in second
    picture = cv2.imdecode(
        np.frombuffer(base64.b64decode(first.split("base64,")[1].split('"')[0]), np.uint8),
        cv2.IMREAD_GRAYSCALE,
    )
    assert picture is not None
    assert (picture == np.where(pixels > 0, 0, 255)).all()


def test_nothing_is_not_written_like_a_hyphen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lines_in(tmp_path / "lines", one=f"{TEXT}-", two=TEXT.replace("line", "-ine"))
    assert run(monkeypatch, SHIPPED, "--folder", folder, "--decoder", "greedy", "--out", tmp_path) == 0
    head, *rows = table(tmp_path / "confusions.tsv")
    assert head == ["reference", "read", "count"]
    assert sorted(rows) == [["-", "l", "1"], ["-", "\N{EMPTY SET}", "1"]]
    folder = lines_in(tmp_path / "more", one=TEXT.replace(" ", "", 1))
    assert run(monkeypatch, SHIPPED, "--folder", folder, "--decoder", "greedy", "--out", tmp_path) == 0
    assert table(tmp_path / "confusions.tsv")[1:] == [["\N{EMPTY SET}", "\N{OPEN BOX}", "1"]]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (SHIPPED.parent / "nowhere", (), "nowhere"),
        (SHIPPED, ("--device", "cuda:99"), "'cuda:99'"),
        (SHIPPED, ("--device", "gpu"), "got 'gpu', need auto, cpu, cuda or cuda:N"),
        (SHIPPED, ("--folder", "nowhere"), "nowhere: no such file or folder"),
        (SHIPPED, (), "nothing to read: name --data, --folder or --iam"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    model: Path,
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, model, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("evaluate: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_blank_line_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lines_in(tmp_path / "lines", good=TEXT, blank=TEXT)
    cv2.imwrite(str(folder / "blank.png"), np.full((60, 400), 240, np.uint8))
    assert run(monkeypatch, SHIPPED, "--folder", folder, "--decoder", "greedy", "--out", tmp_path) == 0
    assert "lines/blank.png skipped: blank" in capsys.readouterr().err
    assert [row[1] for row in table(tmp_path / "readings.tsv")[1:]] == ["lines/good.png"]
