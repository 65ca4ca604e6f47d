from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.training_runs import STARTED_ANEW, Train, command, environment, train_elsewhere
from longhand_server.alphabet import Alphabet
from longhand_server.config import NetworkConfig
from longhand_training import ablate, export
from longhand_training.checkpoint import Checkpoint, mixed, update_average
from longhand_training.config import TrainingConfig, sized_like
from longhand_training.dataset import Sample, collate
from longhand_training.greedy import greedy_texts
from longhand_training.train import _parser
from longhand_training.trainer import Trainer

TINY = TrainingConfig(
    minutes=1.0,
    channels=(6, 8, 12, 24),
    blocks=(1, 1, 1),
    hidden=24,
    dropout=0.0,
    warm_up=0.0,
    learning_rate=1e-2,
    ema=0.9,
)
ALPHABET = Alphabet("abc ")


def marks() -> list[Sample]:
    """Three letters as three shapes, in a few orders."""
    shapes = {"a": (8, 24), "b": (24, 40), "c": (40, 56)}
    samples = []
    for text in ("abc", "cab", "bba", "acc"):
        pixels = np.zeros((64, 24 + 28 * len(text)), np.float32)
        for i, letter in enumerate(text):
            top, bottom = shapes[letter]
            pixels[top:bottom, 16 + 28 * i : 30 + 28 * i] = 1.0
        samples.append(Sample(pixels[:, : pixels.shape[1] // 4 * 4], text))
    return samples


def test_a_tiny_network_learns_four_lines_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    samples = marks()
    batch = collate(samples, ALPHABET)
    trainer = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path)
    first = trainer.train_batch(batch)
    for _ in range(60):
        last = trainer.train_batch(batch)
    assert last < 0.5 * first

    trainer.checkpoint().save(tmp_path / "last.pt")
    resumed = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path)
    resumed.resume(Checkpoint.load(tmp_path / "last.pt"))
    assert (resumed.step, resumed.lines) == (61, 61 * 4)
    assert resumed.train_batch(batch) == pytest.approx(trainer.train_batch(batch), rel=1e-3)

    for _ in range(300):
        resumed.train_batch(batch)
    network = resumed.checkpoint().restore()
    texts = greedy_texts(network, samples, ALPHABET, torch.device("cpu"))
    assert texts == [sample.text for sample in samples]


def test_a_network_learns_from_two_looks_at_each_line(tmp_path: Path) -> None:
    samples = marks()
    trainer = Trainer(dataclasses.replace(TINY, consistency=0.2), ALPHABET, torch.device("cpu"), tmp_path)
    batch = collate(samples, ALPHABET)
    for _ in range(400):
        trainer.train_batch(batch)
    assert trainer.lines == 1600  # looks are not counted
    network = trainer.checkpoint().restore()
    texts = greedy_texts(network, samples, ALPHABET, torch.device("cpu"))
    assert texts == [sample.text for sample in samples]


def test_validation_lines_may_have_characters_that_the_network_cannot_write(tmp_path: Path) -> None:
    samples = [*marks(), Sample(marks()[0].pixels, "ab\N{INFINITY}")]
    trainer = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path)
    assert trainer.validate({"own": samples})["own"] >= 1 / 15  # what cannot be written is an error


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    trainer = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path)
    batch = collate(marks(), ALPHABET)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    good = trainer.network.output.bias.detach().clone()
    with torch.no_grad():
        trainer.network.output.bias[0] = torch.nan
    assert np.isnan(trainer.train_batch(batch))
    with torch.no_grad():
        trainer.network.output.bias.copy_(good)
    for name, tensor in trainer.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert trainer.step == 0


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path).checkpoint().save(tmp_path / "last.pt")
    saved = Checkpoint.load(tmp_path / "last.pt")
    other = Trainer(TINY, Alphabet("xyz "), torch.device("cpu"), tmp_path)
    with pytest.raises(ValueError, match="alphabet"):
        other.resume(saved)


def test_a_checkpoint_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    trainer = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path)
    (tmp_path / "last.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"^cannot write .*last\.pt: No space left on device$"):
        trainer.checkpoint().save(tmp_path / "last.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_decay_that_is_named_anew_takes_effect(tmp_path: Path) -> None:
    trainer = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path)
    trainer.train_batch(collate(marks(), ALPHABET))
    trainer.checkpoint().save(tmp_path / "last.pt")
    other = Trainer(dataclasses.replace(TINY, weight_decay=0.5), ALPHABET, torch.device("cpu"), tmp_path)
    other.resume(Checkpoint.load(tmp_path / "last.pt"))
    assert [group["weight_decay"] for group in other.optimiser.param_groups] == [0.5]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt: not a readable checkpoint"):
        Checkpoint.load(path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        Checkpoint.load(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [torch.nn.Linear(1, 1), {"state_dict": {}}, [1]])
def test_a_file_of_another_program_is_no_checkpoint_and_nobody_is_advised_to_run_it(
    content: object, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(
        ValueError, match=r"x\.pt: not a readable checkpoint \(best.pt or last.pt of a run\)$"
    ):
        Checkpoint.load(tmp_path / "x.pt")


class _Program:
    """What a file may ask whoever unpickles it to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    saved = Trainer(TINY, ALPHABET, torch.device("cpu"), tmp_path).checkpoint()
    saved.settings = {"odd": _Program(tmp_path / "run")}
    saved.save(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: not a readable checkpoint"):
        Checkpoint.load(tmp_path / "x.pt")
    assert not (tmp_path / "run").exists()


def test_weights_of_two_runs_are_mixed_by_their_shares(tmp_path: Path) -> None:
    runs = [
        Trainer(dataclasses.replace(TINY, seed=seed), ALPHABET, torch.device("cpu"), tmp_path).checkpoint()
        for seed in (1, 2)
    ]
    both = mixed(runs[0], runs[1], 0.25)
    for name, tensor in both.weights.items():
        wanted = 0.75 * runs[0].weights[name].numpy() + 0.25 * runs[1].weights[name].numpy()
        np.testing.assert_allclose(tensor.numpy(), wanted, atol=1e-6)
    assert (both.settings["seed"], both.settings["mixed_with"]["seed"]) == (1, 2)
    with pytest.raises(ValueError, match=r"got 1\.5, need 0 < value < 1"):
        mixed(runs[0], runs[1], 1.5)
    runs[1].characters = "xyz "
    with pytest.raises(ValueError, match="only like networks"):
        mixed(runs[0], runs[1], 0.5)


def test_the_average_moves_by_its_decay() -> None:
    average = {"w": torch.zeros(2), "n": torch.tensor(1)}
    update_average(average, {"w": torch.ones(2), "n": torch.tensor(5)}, 0.75)
    assert average["w"].tolist() == [0.25, 0.25]
    assert int(average["n"]) == 5


@pytest.mark.parametrize(
    ("name", "value"), [("minutes", 0.0), ("ema", 1.0), ("consistency", -1.0), ("batch_pixels", -1)]
)
def test_settings_out_of_range_are_named_by_their_option(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="--" + name.replace("_", "-")):
        TrainingConfig(**{name: value})


def test_the_command_trains_on_a_folder_stops_at_its_limit_and_exports(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines"
    lines.mkdir()
    for i, text in enumerate(("hello", "world")):
        grey = np.full((60, 240), 255, np.uint8)
        cv2.putText(grey, text, (10, 42), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 0, 3)
        cv2.imwrite(str(lines / f"{i}.png"), grey)
        (lines / f"{i}.txt").write_text(text)
    run, out = tmp_path / "run", tmp_path / "bundle"
    arguments = ["--folder", lines, "--minutes", "0.02", "--hidden", "16", "--channels", "4", "6", "8", "8"]
    # As from a shell: it sets its environment and starts itself anew.
    plain = {name: value for name, value in environment().items() if name not in STARTED_ANEW}
    done = subprocess.run(
        command(*arguments, "--out", run), capture_output=True, text=True, check=False, env=plain, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "finished\nbest.pt holds the weights of step " in done.stdout
    assert "too few" not in done.stdout
    monkeypatch.setattr(sys, "argv", ["export", str(run / "last.pt"), "--out", str(out), "--name", "mine"])
    assert export.main() == 0
    done = train(*arguments, "--out", tmp_path / "tuned", "--init", out)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout
    assert "validation lines: 1, too few" in done.stdout
    assert (tmp_path / "tuned" / "last.pt").is_file()


def test_processes_that_train_together_end_at_the_same_step_with_the_same_weights(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.mkdir()
    cv2.imwrite(str(lines / "0.png"), np.where(np.eye(60, 240, 20) > 0, 0, 255).astype(np.uint8))
    (lines / "0.txt").write_text("abc")
    run = tmp_path / "a run"  # the file where they meet lies there, too
    size = ["--lines", "300", "--batch-pixels", "8000"]
    done = train_elsewhere("--folder", lines, "--out", run, "--processes", "2", *size)
    assert done.returncode == 0, done.stderr
    saved = Checkpoint.load(run / "last.pt")
    assert saved.settings["processes"] == 2
    assert saved.training["lines"] >= 300


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_averaged_over_processes(count: int, tmp_path: Path) -> None:
    # The processes are forks of one that has imported PyTorch, for which each would need seconds.
    code = (
        "import multiprocessing, os, sys, torch; from pathlib import Path\n"
        "from longhand_training.replicas import Replicas\n"
        "def average(rank, count, meeting_point):\n"
        "    replicas = Replicas(rank, count, meeting_point)\n"
        "    a, b = torch.zeros(2, 2, requires_grad=True), torch.zeros(1, requires_grad=True)\n"
        "    a.grad, b.grad = torch.full((2, 2), float(rank)), torch.tensor([10.0 * rank])\n"
        "    loss = replicas.average_gradients([a, torch.zeros(3), b], torch.tensor(100.0 * rank)).item()\n"
        "    mean = replicas.mean([rank, 1.0])\n"
        # In one write: print() writes the end of the line separately.
        "    line = f'{a.grad.flatten().tolist()} {b.grad.tolist()} {loss} {mean}\\n'\n"
        "    os.write(1, line.encode())\n"
        "context, count = multiprocessing.get_context('fork'), int(sys.argv[1])\n"
        "ranks = [(rank, count, Path(sys.argv[2])) for rank in range(count)]\n"
        "processes = [context.Process(target=average, args=arguments) for arguments in ranks]\n"
        "for process in processes: process.start()\n"
        "for process in processes: process.join()\n"
    )
    mean = (count - 1) / 2
    done = subprocess.run(
        [sys.executable, "-c", code, str(count), str(tmp_path / "meet")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{[mean] * 4} {[10 * mean]} {100 * mean} {[mean, 1.0]}"] * count


def test_fine_tuning_keeps_the_size_of_the_network() -> None:
    small = NetworkConfig(labels=5, channels=(4, 8, 8, 16), hidden=24)
    config = sized_like(TrainingConfig(), small)
    assert (config.channels, config.hidden) == ((4, 8, 8, 16), 24)
    with pytest.raises(ValueError, match="--hidden: got 96, but the network that is to go on has 24"):
        sized_like(TrainingConfig(hidden=96), small)


def test_no_lines_to_train_on_is_one_clear_line(tmp_path: Path) -> None:
    done = train_elsewhere("--out", tmp_path / "run")
    assert done.returncode == 2
    assert "no training lines: name --data, --folder or --iam" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schedule_over_lines_does_not_hang_on_the_clock(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, lines=40, minutes=1e-9)
    trainer = Trainer(config, ALPHABET, torch.device("cpu"), tmp_path)
    trainer.seconds = 1e6
    for _ in range(5):
        trainer.train_batch(collate(marks(), ALPHABET))
    assert trainer.progress == 0.5
    for _ in range(6):
        trainer.train_batch(collate(marks(), ALPHABET))
    assert trainer.progress == 1.0
    assert trainer.learning_rate() == pytest.approx(0.01 * TINY.learning_rate)


def test_the_learning_rate_rises_to_its_peak_and_falls_by_half_a_cosine(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, lines=1000, warm_up=0.2)
    trainer = Trainer(config, ALPHABET, torch.device("cpu"), tmp_path)
    shares = []
    for trainer.lines in (0, 100, 200, 600, 1000):
        shares.append(trainer.learning_rate() / config.learning_rate)
    assert shares == pytest.approx([0.05, 0.525, 1.0, 0.505, 0.01])


@pytest.mark.parametrize("variant", list(ablate.VARIANTS))
def test_every_variant_of_the_ablation_is_a_run_that_training_understands(
    variant: str, tmp_path: Path
) -> None:
    options = argparse.Namespace(
        data=tmp_path, fonts=None, out=tmp_path / "out", lines=10, validation_lines=2, threads=1
    )
    _, _, module, *arguments = ablate.command(variant, options)
    assert module == "longhand_training.train"
    config = TrainingConfig.from_options(_parser().parse_args(arguments))
    assert config.lines == 10
    assert len(config.channels) == len(config.blocks) + 1


def test_an_ablation_takes_finished_runs_as_they_are_and_names_the_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in STARTED_ANEW.items():  # its runs are processes of their own
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    (out / "all").mkdir(parents=True)
    (out / "all" / "log.csv").write_text("minutes,lines,cer_pen\n0.5,50,0.9\n1.04,100,0.125\n")
    arguments = ["--data", str(tmp_path), "--out", str(out), "--lines", "100", "--variants", "all", "strokes"]
    monkeypatch.setattr(sys, "argv", ["ablate", *arguments])
    assert ablate.main() == 1
    assert (out / "ablations.tsv").read_text().splitlines() == [
        "variant\tlines\tminutes\tpen",
        "all\t100\t1.0\t12.50",
    ]
    printed = capsys.readouterr()
    assert printed.out == "variant all  lines 100  minutes 1.0  pen 12.50\n"
    assert f"strokes failed (2); see {out}/strokes/output.txt" in printed.err
    output = (out / "strokes" / "output.txt").read_text()
    assert output.startswith("train: ")
    assert "iamondb_strokes.npz: not a readable" in output
