"""What `python -m longhand_training.train` does with its options, and when it goes on."""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.training_runs import (
    ALPHABET,
    STARTED_ANEW,
    Train,
    bars,
    own_lines,
    tiny_trainer,
    train_elsewhere,
)
from longhand_training.checkpoint import Checkpoint
from longhand_training.config import FINE_TUNING_RATE, TrainingConfig
from longhand_training.curves import RunLog, draw_curves, read_log
from longhand_training.dataset import Batch, Sample, collate
from longhand_training.loop import run
from longhand_training.stopping import StopSignals
from longhand_training.text import read_characters
from longhand_training.train import _parser
from longhand_training.trainer import FEW_LINES


def reading_wrongly(*rates: float) -> Callable[[object], dict[str, float]]:
    """Validates with these error rates, one after the other."""
    each = iter(rates)
    return lambda sets: {"own": next(each)}


def test_fine_tuning_keeps_the_weights_that_it_began_from_until_others_read_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tiny_trainer(tmp_path / "start", seed=5).checkpoint()
    trainer = tiny_trainer(tmp_path / "tuned", lines=6, validate_every=1e-6)
    trainer.initialise(start)
    monkeypatch.setattr(trainer, "validate", reading_wrongly(0.1, 0.5, 0.4, 0.3))
    samples = bars()
    trainer.validates_on({"own": samples * FEW_LINES})
    assert run(trainer, itertools.repeat(collate(samples, ALPHABET)), {"own": samples}, 1e6, StopSignals())
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if ":" in line] == [
        "before: own 10.00 %",
        *(f"validation: own {rate}.00 %" for rate in (50, 40, 30)),
    ]
    best = Checkpoint.load(tmp_path / "tuned" / "best.pt")
    assert all(torch.equal(tensor, start.weights[name]) for name, tensor in best.weights.items())
    assert best.training == {}  # nothing goes on from it; it is kept for its weights
    assert trainer.summary() == (
        "best.pt holds the weights that this run began from, CER 10.00 %: nothing since read better"
    )
    first, *others = read_log(tmp_path / "tuned" / "log.csv")
    assert (first["step"], first["cer_own"], "loss" in first) == ("0", "0.1", False)
    assert [row["step"] for row in others] == ["1", "2", "3"]
    assert all("loss" in row for row in others)


def test_few_validation_lines_keep_no_weights_that_have_learned_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = bars()
    for count, step in ((FEW_LINES - 1, 2), (FEW_LINES, 0)):
        trainer = tiny_trainer(tmp_path / str(count), lines=6, validate_every=1e-6)
        trainer.initialise(tiny_trainer(tmp_path / "start", seed=5).checkpoint())
        trainer.validates_on({"own": [samples[0]] * count})
        monkeypatch.setattr(trainer, "validate", reading_wrongly(0.0, 0.01, 0.01, 0.02))
        assert run(
            trainer, itertools.repeat(collate(samples, ALPHABET)), {"own": samples}, 1e6, StopSignals()
        )
        assert trainer.best_step == step
        assert trainer.stale == (2 if step else 3)


def test_the_end_tells_which_weights_are_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = bars()
    for begun_from, wanted in ((True, ", 60.00 % before"), (False, "")):
        trainer = tiny_trainer(tmp_path / str(begun_from), lines=6, validate_every=1e-6)
        if begun_from:
            trainer.initialise(tiny_trainer(tmp_path / "start", seed=5).checkpoint())
        rates = [*([0.6] if begun_from else []), 0.5, 0.4, 0.45]
        monkeypatch.setattr(trainer, "validate", reading_wrongly(*rates))
        trainer.validates_on({"own": samples})
        assert run(
            trainer, itertools.repeat(collate(samples, ALPHABET)), {"own": samples}, 1e6, StopSignals()
        )
        assert trainer.summary() == f"best.pt holds the weights of step 2, CER 40.00 %{wanted}"
        resumed = tiny_trainer(tmp_path / str(begun_from), lines=6)
        resumed.resume(trainer.checkpoint())
        assert resumed.summary() == trainer.summary()
    # With other lines than before, what the first ones gave compares with nothing.
    resumed.before = 0.6
    resumed.validates_on({"other": samples})
    assert not resumed.before
    trainer.set_sizes, trainer.best_step = {}, None  # nothing to validate on; an older checkpoint
    assert trainer.summary() == "best.pt holds the weights"


def test_a_run_that_begins_anew_is_not_validated_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = tiny_trainer(tmp_path, lines=2)
    samples = bars()
    assert run(trainer, itertools.repeat(collate(samples, ALPHABET)), {"own": samples}, 1e6, StopSignals())
    assert "before" not in capsys.readouterr().out


def test_a_run_that_is_killed_goes_on_with_the_best_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(tmp_path, lines=8, validate_every=1e-6, checkpoint_every=1000.0)
    monkeypatch.setattr(trainer, "validate", reading_wrongly(0.5, 0.1, 0.4))
    samples = bars()

    def batches() -> Iterator[Batch]:
        yield from [collate(samples, ALPHABET)] * 3
        raise KeyboardInterrupt  # nothing is saved from here on

    with pytest.raises(KeyboardInterrupt):
        run(trainer, batches(), {"own": samples}, 1e6, StopSignals())
    resumed = tiny_trainer(tmp_path, lines=8)
    resumed.resume(Checkpoint.load(tmp_path / "last.pt"))
    assert (resumed.best, resumed.stale, resumed.step, resumed.validated_step) == (0.1, 1, 3, 3)


def test_a_run_out_of_patience_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = bars()
    for patience, step in ((2, 5), (4, 6)):
        trainer = tiny_trainer(tmp_path, lines=12, patience=patience, validate_every=1000.0)
        trainer.stale, trainer.step, trainer.lines, trainer.best = 2, 5, 10, 0.0
        monkeypatch.setattr(trainer, "validate", lambda sets: {"own": 0.5})
        assert run(trainer, itertools.repeat(collate(samples, ALPHABET)), {}, 1e6, StopSignals())
        assert trainer.step == step
    assert capsys.readouterr().out == "no better for 2 validations: stopped\nvalidation: own 50.00 %\n"


def test_rows_of_steps_that_a_run_has_lost_leave_the_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (0, 10, 20):
        log.add({"minutes": step / 10, "step": step, "loss": 1.0, "cer_own": 0.5})
    RunLog(tmp_path, 10)
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == ["0", "10"]


@pytest.mark.parametrize(("named", "rate"), [([], FINE_TUNING_RATE), (["--learning-rate", "0.002"], 0.002)])
def test_fine_tuning_is_slow_unless_told_otherwise(named: list[str], rate: float) -> None:
    options = _parser().parse_args(["--out", "run", *named])
    assert TrainingConfig.from_options(options, learning_rate=FINE_TUNING_RATE).learning_rate == rate
    assert TrainingConfig.from_options(_parser().parse_args(["--out", "run"])).learning_rate == 1.5e-3


def test_where_fine_tuning_began_is_recorded_and_own_validation_lines_take_the_place_of_held_out_ones(
    train: Train, tmp_path: Path
) -> None:
    lines, others = own_lines(tmp_path / "lines", "hello"), own_lines(tmp_path / "other" / "lines", "hello")
    first = tmp_path / "first"
    # With a worker: what the run leaves behind at its end must not keep it from ending.
    done = train_elsewhere("--folder", lines, "--out", first, "--lines", "10", "--workers", "1")
    assert done.returncode == 0, done.stderr
    tuned = tmp_path / "tuned"
    arguments = ["--folder", lines, "--out", tuned, "--init", first / "last.pt", "--lines", "10"]
    done = train(*arguments, "--validate", others, "--validate", own_lines(tmp_path / "more", "hello"))
    assert done.returncode == 0, done.stderr
    assert "before: lines " in done.stdout
    settings = Checkpoint.load(tuned / "last.pt").settings
    assert settings["init"] == str(first / "last.pt")
    assert settings["learning_rate"] == FINE_TUNING_RATE
    assert settings["own_validation_lines"] == [str(others), str(tmp_path / "more")]
    assert (tuned / "best.pt").is_file()
    with (tuned / "log.csv").open(newline="") as file:
        assert {"cer_lines", "cer_more"} <= set(next(csv.reader(file)))


def test_a_log_takes_rows_of_other_validation_sets(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.add({"minutes": 0.0, "step": 0, "loss": None, "cer_old": 0.9})
    log.add({"minutes": 1.0, "step": 9, "loss": 2.5, "cer_old": 0.8})
    log.add({"minutes": 2.0, "step": 19, "loss": 1.5, "cer_old": 0.7, "cer_new": 0.5})
    log.add({"minutes": 3.0, "step": 29, "loss": 1.0, "cer_new": 0.4})
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cer_old"] for row in rows] == ["0.9", "0.8", "0.7", ""]
    assert [row["cer_new"] for row in rows] == ["", "", "0.5", "0.4"]
    assert [row["loss"] for row in rows] == ["", "2.5", "1.5", "1.0"]
    assert (tmp_path / "curves.png").is_file()


def test_curves_are_drawn_where_nothing_is_read_wrongly(tmp_path: Path) -> None:
    for rates in ([0.0, 0.0], [0.5, 0.0]):  # a logarithmic axis of zeros is a warning, which fails here
        rows = [{"minutes": i, "loss": 1.0, "cer_own": rate} for i, rate in enumerate(rates)]
        draw_curves(rows, tmp_path / "curves.png")
    draw_curves([{"minutes": 0.0, "cer_own": 0.0}], tmp_path / "curves.png")  # before a first step


def test_a_log_that_an_older_version_left_with_cells_too_many_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("minutes,step,loss,cer_a\n1,9,2.5,0.8\n2,19,1.5,0.7,0.5\n3,29\n")
    RunLog(tmp_path).add({"minutes": 4.0, "step": 39, "loss": 1.0, "cer_a": 0.6})
    assert [row.get("cer_a") for row in read_log(tmp_path / "log.csv")] == ["0.8", "0.7", None, "0.6"]


def test_with_other_validation_sets_the_best_mean_is_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.validates_on({"a": bars()})
    trainer.best, trainer.stale = 0.1, 2
    trainer.checkpoint().save(tmp_path / "last.pt")
    for sets, best in (({"a": bars()}, 0.1), ({"a": bars(), "b": bars()[:1]}, float("inf"))):
        resumed = tiny_trainer(tmp_path)
        resumed.resume(Checkpoint.load(tmp_path / "last.pt"))
        resumed.validates_on(sets)
        assert resumed.best == best
    assert capsys.readouterr().out == (
        "validation sets were a (2 lines) and are a (2 lines), b (1 lines): best.pt is chosen anew\n"
    )
    others = [Sample(sample.pixels, sample.text, "another line") for sample in bars()]
    corrected = [Sample(sample.pixels, "aa") for sample in bars()]
    for samples in (others, corrected):
        resumed = tiny_trainer(tmp_path)
        resumed.resume(Checkpoint.load(tmp_path / "last.pt"))
        resumed.validates_on({"a": samples})
        assert (resumed.best, resumed.stale) == (float("inf"), 0)
        assert (
            capsys.readouterr().out
            == "validation sets a (2 lines) have other lines: best.pt is chosen anew\n"
        )
    old = Checkpoint.load(tmp_path / "last.pt")
    del old.training["set_digests"]  # as version 1.7 wrote it
    resumed = tiny_trainer(tmp_path)
    resumed.resume(old)
    resumed.validates_on({"a": others})
    assert resumed.best == 0.1
    del old.training["set_sizes"]  # as version 1.6 wrote it
    resumed = tiny_trainer(tmp_path)
    resumed.resume(old)
    resumed.validates_on({"b": bars()})
    assert (resumed.best, resumed.stale) == (0.1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "train: --device: got 'gpu', need auto, cpu or cuda"),
        (["--device", "cuda:99"], "train: --device: got 'cuda:99', need auto, cpu or cuda[:i]; CUDA devices"),
        (["--folder-share", "0"], "train: no training lines: every source has a share of 0 (folder"),
        (["--characters", "/nowhere.txt"], "train: /nowhere.txt: not a readable text"),
        (["--fonts", "."], "train: --fonts needs --data (its text)"),
        (["--pen-share", "0.3"], "train: --pen-share needs --data (its lines)"),
        (["--validate-iam-ids", "all"], "train: --validate-iam-ids needs --iam (the database)"),
    ],
)
def test_what_cannot_be_trained_with_is_one_line(
    arguments: list[str], message: str, train: Train, tmp_path: Path
) -> None:
    lines = own_lines(tmp_path / "lines", "hello", "hello")
    done = train("--folder", lines, "--out", tmp_path / "run", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_read(
    train: Train, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = train("--folder", tmp_path / "none", "--out", tmp_path / "file" / "run", "--processes", "2")
    assert done.returncode == 2
    assert done.stderr == f"train: --out: {tmp_path}/file/run is no folder to write into: Not a directory\n"


@pytest.mark.parametrize(
    ("option", "value", "need"),
    [
        ("--threads", "-1", "a whole number, at least 0"),
        ("--workers", "x", "a whole number, at least 0"),
        ("--processes", "0", "a whole number, at least 1"),
        ("--hold-out", "5", "a number, 0 to 0.5"),
        ("--hold-out", "-1", "a number, 0 to 0.5"),
        ("--folder-share", "nan", "a number, at least 0"),
        ("--pen-share", "-0.1", "a number, at least 0"),
    ],
)
def test_options_out_of_range_are_usage_errors(
    option: str, value: str, need: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        _parser().parse_args(["--out", "run", option, value])
    assert end.value.code == 2
    assert f"argument {option}: got {value!r}, need {need}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "both", [["--hold-out", "0.2", "--validate", "x"], ["--init", "x", "--characters", "y"]]
)
def test_options_that_exclude_each_other_are_usage_errors(
    both: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--out", "run", *both])
    assert "not allowed with" in capsys.readouterr().err


def test_the_command_starts_itself_anew_before_it_waits_for_pytorch() -> None:
    code = (
        "import os, sys\n"
        "os.execve = lambda *_: sys.exit('torch' in sys.modules)\n"
        "sys.argv = ['train', '--out', 'run']\n"
        "from longhand_training.train import main\n"
        "main()\n"
    )
    fresh = {name: value for name, value in os.environ.items() if name not in STARTED_ANEW}
    assert subprocess.run([sys.executable, "-c", code], env=fresh, check=False, timeout=60).returncode == 0


def test_a_run_that_goes_on_keeps_its_learning_rate(train: Train, tmp_path: Path) -> None:
    lines, out = own_lines(tmp_path / "lines", "hello"), tmp_path / "run"
    start = tmp_path / "start"
    assert train("--folder", lines, "--out", start, "--lines", 1).returncode == 0
    arguments = ["--folder", lines, "--out", out]
    done = train(*arguments, "--init", start / "last.pt", "--lines", 1)
    assert done.returncode == 0, done.stderr
    done = train(*arguments, "--lines", 30)
    assert done.returncode == 0, done.stderr
    settings = Checkpoint.load(out / "last.pt").settings
    assert settings["learning_rate"] == FINE_TUNING_RATE
    assert settings["init"] == str(start / "last.pt")

    # What it began from is not needed any more, but must not be another.
    (start / "last.pt").unlink()
    done = train(*arguments, "--init", start / "last.pt", "--lines", 30)
    assert done.returncode == 0, done.stderr
    done = train(*arguments, "--init", start / "best.pt", "--lines", 30)
    assert done.returncode == 2
    assert done.stderr == (
        f"train: --init {start}/best.pt: {out} holds a run from {start}/last.pt; name another --out\n"
    )


def test_lines_that_are_trained_on_are_not_validated_on(train: Train, tmp_path: Path) -> None:
    lines = own_lines(tmp_path / "lines", "hello")
    done = train(
        "--folder", lines, "--validate", f"{lines}/../lines", "--out", tmp_path / "run", "--lines", 1
    )
    assert done.returncode == 2
    assert done.stderr == (f"train: {lines}: every line is validated on, and none is left to train on\n")


def test_an_alphabet_of_ones_own_is_trained_and_kept(train: Train, tmp_path: Path) -> None:
    characters = tmp_path / "characters.txt"
    characters.write_text("\N{BOM}abcż łŁ“ż\n" + "z\u0307\n", "utf-8")  # z + combining dot: the same letter
    assert read_characters(characters) == ' abcżłŁ"'
    lines = own_lines(tmp_path / "lines", "żabła")
    done = train("--folder", lines, "--out", tmp_path / "run", "--characters", characters, "--lines", "4")
    assert done.returncode == 0, done.stderr
    assert Checkpoint.load(tmp_path / "run" / "last.pt").characters == ' abcżłŁ"'
    assert (
        "nothing to validate on: best.pt will be the last weights; name --validate or --hold-out\n"
        in done.stdout
    )
    done = train("--folder", lines, "--out", tmp_path / "run", "--lines", "8")
    assert done.returncode == 0, done.stderr
    assert Checkpoint.load(tmp_path / "run" / "last.pt").characters == ' abcżłŁ"'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "need the characters"),
        (b"\xff\xfe", "not a readable text"),
        ("a\u0301\u0000".encode(), r"\\x00"),
    ],
)
def test_an_alphabet_that_cannot_be_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "characters.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"characters\.txt: .*{message}"):
        read_characters(tmp_path / "characters.txt")
