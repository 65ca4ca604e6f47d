"""What ends `python -m longhand_training.train` before its time: signals, lost processes, want of memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.training_runs import (
    ALPHABET,
    Train,
    bars,
    command,
    environment,
    own_lines,
    tiny_trainer,
    train_elsewhere,
)
from longhand_training import piece
from longhand_training.checkpoint import Checkpoint
from longhand_training.dataset import Batch, collate
from longhand_training.loop import run
from longhand_training.replicas import ProcessLostError, Replicas
from longhand_training.stopping import Stopped, StopSignals
from longhand_training.trainer import Trainer


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "longhand_training.train", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "importing\n"
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (-signal.SIGINT, "")


def test_ctrl_c_before_there_is_anything_to_save_is_no_traceback(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(piece, "train", interrupted)
    done = train("--out", "run")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("DataLoader worker (pid(s) 7) exited unexpectedly", ProcessLostError),
        ("Caught RuntimeError in DataLoader worker process 0.", RuntimeError),
    ],
)
def test_a_process_that_makes_lines_and_is_killed_is_told_from_a_mistake(
    said: str, error: type[Exception], tmp_path: Path
) -> None:
    def batches() -> Iterator[Batch]:
        yield collate(bars(), ALPHABET)
        raise RuntimeError(said)

    trainer = tiny_trainer(tmp_path, lines=8)
    with pytest.raises(RuntimeError) as lost:
        run(trainer, batches(), {}, 1e6, StopSignals())
    assert type(lost.value) is error
    assert trainer.step == 1


def test_a_batch_too_large_for_the_gpu_is_said_and_a_smaller_one_goes_on(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    step = Trainer.train_batch

    def two_steps(trainer: Trainer, batch: Batch) -> float:
        if trainer.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return step(trainer, batch)

    arguments = ["--folder", own_lines(tmp_path / "lines", "hello"), "--out", tmp_path / "run", "--lines", 6]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_batch", two_steps)
        done = train(*arguments, "--batch-pixels", 600)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith("train: --batch-pixels: got 600, more than the GPU has memory for"), done.stderr
    again = train(*arguments, "--batch-pixels", 500)
    assert again.returncode == 0, again.stderr
    assert "finished" in again.stdout


def test_two_runs_do_not_share_a_folder(train: Train, tmp_path: Path) -> None:
    other = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    arguments = ["--folder", own_lines(tmp_path / "lines", "hello"), "--out", tmp_path, "--lines", 1]
    with subprocess.Popen(
        [sys.executable, "-c", other, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "taken\n"
        done = train(*arguments)
        assert (done.returncode, done.stderr) == (2, f"train: --out: another run is at work in {tmp_path}\n")
        running.communicate()
    assert train(*arguments).returncode == 0


def test_a_process_that_ends_while_the_others_meet_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed")

    monkeypatch.setattr(torch.distributed, "init_process_group", failing)
    with pytest.raises(ProcessLostError, match="another process was lost"):
        Replicas(0, 2, tmp_path / "meeting_point")


def test_a_process_that_died_while_it_was_importing_is_not_waited_for(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "raise SystemExit(9)"])
    dead.wait()
    with pytest.raises(ProcessLostError, match="another process was lost"):
        Replicas(0, 2, tmp_path / "meeting_point", [dead])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_a_step(handlers: None, number: int, status: int) -> None:
    signals = StopSignals()
    signals.install()
    os.kill(os.getpid(), number)  # in a step: noted, no more
    assert (signals.received, signals.exit_status) == (number, status)
    with pytest.raises(Stopped), signals.interruptible():
        pytest.fail("a block that may be interrupted does not begin after the signal")
    os.kill(os.getpid(), number)  # a second one does not harm the checkpoint that is being written

    signals = StopSignals()
    signals.install()
    with pytest.raises(Stopped), signals.interruptible():
        signal.raise_signal(number)

    signals = StopSignals()
    signals.install()
    with signals.interruptible():
        pass
    os.kill(os.getpid(), number)  # in the step behind the block
    assert signals.received == number


def test_a_loaders_worker_ends_when_its_parent_says_so_and_not_with_the_group(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, time\n"
        "from longhand_training.stopping import heed_parent_only\n"
        "def work(ready):\n"
        "    heed_parent_only(0)\n"
        "    ready.set()\n"
        "    time.sleep(100)\n"
        "context = multiprocessing.get_context('fork')\n"
        "ready = context.Event()\n"
        "worker = context.Process(target=work, args=[ready], daemon=True)\n"
        "worker.start()\n"
        "ready.wait()\n"
        "print(worker.pid, flush=True)\n"
        "input()\n"
        "print(worker.is_alive())\n"  # and the interpreter's end terminates and joins it
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        worker = int(running.stdout.readline())
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker, number)
        time.sleep(0.5)
        output, _ = running.communicate("\n", timeout=30)
    finally:
        running.kill()
    assert (running.returncode, output) == (0, "True\n")


@contextmanager
def begun(out: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A long run in a session of its own, from its first step on; it ends with the block."""
    with subprocess.Popen(
        command("--out", out, *arguments, "--minutes", 5, "--checkpoint-every", 0.001),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as running:
        try:
            end = time.monotonic() + 60
            while not (out / "last.pt").exists():  # the first step is done
                assert running.poll() is None, running.communicate()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("processes", "number", "whole_group"), [(1, 15, False), (2, 15, True), (2, 2, True)]
)
def test_a_run_that_is_told_to_stop_saves_and_goes_on(
    processes: int, number: int, whole_group: bool, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["--folder", own_lines(tmp_path / "lines", "hello"), "--processes", processes, "--workers", 1]
    with begun(out, *arguments) as running:
        # Slurm and terminals tell every process of a job, Docker the first one alone.
        (os.killpg if whole_group else os.kill)(running.pid, number)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + number, errors
    assert output.endswith("stopped; the same command goes on\n")
    # A loader's worker that ends in the middle of handing over a batch makes a thread of PyTorch's complain.
    assert "Traceback" not in errors or "resource_sharer" in errors
    step = Checkpoint.load(out / "last.pt").training["step"]
    assert step > 0
    if processes == 1:
        done = train_elsewhere("--out", out, *arguments, "--lines", 1)
        assert done.returncode == 0, done.stderr
        assert f"step {step}" in done.stdout


def test_a_process_that_is_killed_is_named_and_what_was_learned_is_saved(tmp_path: Path) -> None:
    out = tmp_path / "run"
    lines = own_lines(tmp_path / "lines", "hello", "line \N{GREEK SMALL LETTER ALPHA}")
    with begun(out, "--folder", lines, "--hold-out", 0, "--processes", 2) as running:
        (other,) = map(int, Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split())
        os.kill(other, signal.SIGKILL)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 2
    assert errors.endswith("train: process 1 ended (-9); the same command goes on\n")
    assert "Traceback" not in errors
    # What is said of the lines is said by the first process alone.
    assert errors.count("have characters that the network does not write") == 1
    assert Checkpoint.load(out / "last.pt").training["step"] > 0
