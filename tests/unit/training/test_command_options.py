"""Options that the training commands share: numbers, the IAM database, lines that are counted, errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_training import (
    ablate,
    card,
    evaluate,
    export,
    fonts,
    kenlm_tools,
    language_model,
    pack_data,
    preview,
    progress,
    sample,
    smoke,
    train,
    tune,
    word_cuts,
)
from longhand_training.checkpoint import Checkpoint
from longhand_training.command_line import exit_status
from longhand_training.config import TrainingConfig
from longhand_training.packs import LabelledImage
from longhand_training.source_config import refuse_unused
from longhand_training.train import _parser
from longhand_training.trainer import Trainer

MODEL = Path(__file__).parents[3] / "server" / "longhand_server" / "models" / "en"


@pytest.fixture
def iam(tmp_path: Path) -> Path:
    """A database of two training, two validation and two test lines."""
    rows = []
    for number, form in enumerate(("a01-000u", "c04-156", "c04-110")):
        folder = tmp_path / "iam" / "lines" / form[:3] / form
        folder.mkdir(parents=True)
        for line in ("00", "01"):
            grey = np.full((60, 240), 255, np.uint8)
            cv2.putText(grey, f"hello {number}", (10, 42), cv2.FONT_HERSHEY_SIMPLEX, 1.4, int(line), 3)
            cv2.imwrite(str(folder / f"{form}-{line}.png"), grey)
            rows.append(f"{form}-{line} ok 154 19 408 746 1661 89 hello|{number}")
    (tmp_path / "iam" / "lines.txt").write_text("\n".join(rows))
    return tmp_path / "iam"


@pytest.mark.parametrize(
    "command",
    [
        *(ablate, card, evaluate, export, fonts, language_model, pack_data, preview, sample, smoke, train),
        *(tune, word_cuts),
    ],
)
def test_help_fits_a_terminal_and_shows_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: object
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, command, "--help")
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "``" not in text
    assert ":mod:" not in text


def call(monkeypatch: pytest.MonkeyPatch, command: object, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    status = command.main()  # type: ignore[attr-defined]
    assert isinstance(status, int)
    return status


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "option", ["--minutes", "--learning-rate", "--clip", "--validate-every", "--weight-decay"]
)
def test_numbers_of_a_run_are_finite(option: str, value: str) -> None:
    options = _parser().parse_args(["--out", "run", f"{option}={value}"])
    with pytest.raises(ValueError, match=f"^{option}: got {value}, need a finite number"):
        TrainingConfig.from_options(options)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (smoke, "--seconds"),
        (language_model, "--fiction"),
        (ablate, "--jobs"),
        (sample, "--seed"),
        (evaluate, "--threads"),
    ],
)
@pytest.mark.parametrize("value", ["nan", "-1"])
def test_numbers_that_make_no_sense_are_usage_errors(
    command: object,
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, command, option, value)
    assert end.value.code == 2
    assert f"argument {option}: got '{value}', need a" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "-1"])
def test_a_piece_has_an_end(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--out", "run", "--limit-minutes", value])
    assert f"argument --limit-minutes: got '{value}', need a number, at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "x", "--iam-ids", "all"], "--iam-ids needs --iam (the database)"),
        (["--iam", "x", "--hold-out", "0.2"], "--hold-out needs --folder (its lines)"),
        (["--data", "x", "--folder-share", "2"], "--folder-share needs --folder or --iam (own lines)"),
        (["--folder", "x", "--no-recompose"], "--no-recompose needs --data (its pen lines)"),
        (["--folder", "x", "--no-other-hands"], "--no-other-hands needs --data (its pen lines)"),
        (["--folder", "x", "--pen-share", "2"], "--pen-share needs --data (its lines)"),
    ],
)
def test_options_without_what_they_are_of_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        refuse_unused(_parser().parse_args(["--out", "run", *arguments]))
    assert str(refused.value) == message


def test_tuning_takes_lines_of_the_iam_database_and_says_that_they_are_few(
    iam: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(
        data=None,
        folder=[],
        hold_out=0.0,
        iam=iam,
        iam_ids="aachen_validation",
        iam_part="aachen_validation",
        lines=10,
    )
    sets = tune.tuning_lines(options, LineFormat())
    assert [(name, s.name, s.text) for name, lines in sets.items() for s in lines] == [
        ("iam", "c04-156-01", "hello 1")
    ]
    assert capsys.readouterr().err.startswith("1 lines are few to tune on: ")
    monkeypatch.setattr(tune, "_FEW_LINES", 1)
    tune.tuning_lines(options, LineFormat())
    assert capsys.readouterr().err == ""


def test_words_of_the_iam_database_are_cut(
    iam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named: list[str] = []

    def cut(_: object, images: Sequence[LabelledImage]) -> dict[str, list[int] | None]:
        named.extend(image.name for image in images)
        return {name: [] for name in named}

    monkeypatch.setattr(word_cuts, "cut_words", cut)
    assert call(monkeypatch, word_cuts, MODEL, "--iam", iam, "--out", tmp_path / "cuts.json") == 0
    assert named == ["a01-000u-00", "a01-000u-01"]


def test_ranges_of_the_8_bit_network_are_fixed_on_lines_of_the_iam_database(
    iam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines(sources: object, *_: object) -> None:
        raise ValueError(f"asked for {sources.iam}, {sources.iam_ids}")  # type: ignore[attr-defined]

    monkeypatch.setattr(export, "calibration_lines", lines)
    monkeypatch.setattr(Checkpoint, "load", lambda _: argparse.Namespace(characters="ab"))
    assert call(monkeypatch, export, "best.pt", "--out", tmp_path / "model", "--iam", iam) == 2
    assert capsys.readouterr().err == f"export: asked for {iam}, aachen_train\n"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (evaluate, ["--iam", "x", "--hold-out", "0.1"], "--hold-out needs --folder (its lines)"),
        (tune, ["--iam", "x", "--hold-out", "0.1"], "--hold-out needs --folder (its lines)"),
        (evaluate, ["--folder", "x", "--iam-ids", "all"], "--iam-ids needs --iam (the database)"),
        (tune, ["--folder", "x", "--iam-ids", "all"], "--iam-ids needs --iam (the database)"),
        (export, ["--folder", "x", "--iam-ids", "all"], "--iam-ids needs --iam (the database)"),
        (word_cuts, ["--folder", "x", "--iam-ids", "all"], "--iam-ids needs --iam (the database)"),
    ],
)
def test_a_part_of_lines_that_are_not_named_is_refused(
    command: object,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if command is tune else ["--out", tmp_path / "out"]
    assert call(monkeypatch, command, MODEL, *out, *arguments) == 2
    assert capsys.readouterr().err.endswith(f": {message}\n")


@pytest.mark.parametrize(
    ("problem", "status", "said"),
    [(None, 0, ""), (ValueError("no lines"), 2, "name: no lines\n"), (KeyboardInterrupt(), 130, "")],
)
def test_a_command_ends_with_a_line_or_with_none(
    problem: BaseException | None, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @exit_status("name", ValueError)
    def main() -> None:
        if problem is not None:
            raise problem

    assert main() == status
    assert capsys.readouterr().err == said


def test_names_that_a_terminal_cannot_write_end_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    @exit_status("name", OSError)
    def main() -> None:
        print("caf\udce9")
        raise OSError("caf\udce9")

    assert main() == 2
    assert capsys.readouterr() == ("caf\\udce9\n", "name: caf\\udce9\n")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_are_counted_on_a_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert list(progress.counted("abc", "lines")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""  # quick work is not worth a line
    monkeypatch.setattr(progress, "_QUIET_S", 0.0)
    assert list(progress.counted("abc", "lines")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ("\r1 / 3 lines\r3 / 3 lines\n" if is_terminal else "")


def test_what_cannot_be_had_or_written_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    (tmp_path / "text.otf").write_text("no font")
    for font in (tmp_path / "none.ttf", tmp_path / "text.otf"):
        assert call(monkeypatch, sample, "Hello", "--font", font, "--out", out) == 2
        assert capsys.readouterr().err.startswith(f"sample: {font}: ")
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    (tmp_path / "good.otf").write_bytes(font.read_bytes())
    assert call(monkeypatch, sample, "\u05e9", "--font", font, "--out", out) == 2
    assert capsys.readouterr().err == f"sample: {font}: has none of the characters of '\u05e9'\n"
    assert not out.exists()
    assert call(monkeypatch, sample, "Hello", "--font", tmp_path / "good.otf", "--out", out) == 0
    assert out.is_file()
    capsys.readouterr()

    def missing() -> None:
        raise kenlm_tools.KenlmToolsError("no Boost")

    monkeypatch.setattr(kenlm_tools, "kenlm_tools", missing)
    assert call(monkeypatch, kenlm_tools) == 2
    assert capsys.readouterr().err == "kenlm_tools: no Boost\n"


def test_an_alphabet_that_differs_is_named_before_the_size_of_the_network(tmp_path: Path) -> None:
    size = TrainingConfig(channels=(4, 4, 4, 4), blocks=(1, 1, 1), hidden=4, layers=1)
    saved = Trainer(size, Alphabet("ab "), torch.device("cpu"), tmp_path).checkpoint()
    with pytest.raises(ValueError, match=r"^checkpoint has the alphabet 'ab ', this run 'abc '$"):
        Trainer(size, Alphabet("abc "), torch.device("cpu"), tmp_path).resume(saved)


def test_runs_of_another_length_are_no_ablation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strokes").mkdir()
    (tmp_path / "strokes" / "log.csv").write_text("minutes,step,lines,cer_pen\n1,10,16002,0.5\n")
    arguments = ["--out", tmp_path, "--variants", "strokes", "--lines"]
    assert call(monkeypatch, ablate, *arguments, 16000) == 0
    assert capsys.readouterr().out == "variant strokes  lines 16002  minutes 1.0  pen 50.00\n"
    # Cells of sets that one validation lacks are empty.
    (tmp_path / "strokes" / "log.csv").write_text(
        "lines,minutes,cer_pen,cer_ink\n9,1,0.5,0.5\n16002,1,0.5,\n"
    )
    assert call(monkeypatch, ablate, *arguments, 16000) == 0
    assert capsys.readouterr().out == "variant strokes  lines 16002  minutes 1.0  pen 50.00\n"
    assert call(monkeypatch, ablate, *arguments, 4000) == 1
    assert (
        "strokes holds a run of 16002 lines, --lines is 4000; name another --out" in capsys.readouterr().err
    )
