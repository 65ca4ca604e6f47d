"""What one step of a run does, what a checkpoint brings back, and what hangs on the seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from torch.nn import functional

from longhand_server.alphabet import Alphabet
from longhand_server.network import LineNetwork, frame_count
from longhand_training import trainer as trainers
from longhand_training.checkpoint import Checkpoint
from longhand_training.config import TrainingConfig
from longhand_training.dataset import Batch, Sample, collate
from longhand_training.replicas import Replicas
from longhand_training.trainer import Trainer

CONFIG = TrainingConfig(
    lines=1000, channels=(4, 4, 4, 4), blocks=(1, 1, 1), hidden=8, layers=1, dropout=0.0, warm_up=0.5
)
ALPHABET = Alphabet("abc ")


def batch(seed: int = 0) -> Batch:
    pixels = np.random.default_rng(seed).random((2, 64, 64), np.float32)
    return collate([Sample(pixels[0], "abc"), Sample(pixels[1], "ca b")], ALPHABET)


def make(out: Path, replicas: Replicas | None = None, **settings: Any) -> Trainer:
    config = dataclasses.replace(CONFIG, **settings)
    return Trainer(config, ALPHABET, torch.device("cpu"), out, replicas)


def weights(trainer: Trainer) -> Any:
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


def gradients(trainer: Trainer) -> Any:
    given = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    return torch.cat([gradient.flatten() for gradient in given])


def test_a_step_is_as_large_as_the_schedule_says(tmp_path: Path) -> None:
    moved = []
    for lines in (0, 500):
        trainer = make(tmp_path, weight_decay=0.0)
        trainer.lines = lines
        before, rate = weights(trainer), trainer.learning_rate()
        trainer.train_batch(batch())
        moved.append(float((weights(trainer) - before).abs().max()) / rate)
    assert moved == pytest.approx([1.0, 1.0], rel=0.01)  # AdamW's first step is the rate itself


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_weights_decay_as_fast_as_told(decay: float, tmp_path: Path) -> None:
    trainer, plain = make(tmp_path, weight_decay=decay), make(tmp_path, weight_decay=0.0)
    before, rate = weights(trainer), trainer.learning_rate()
    for each in (trainer, plain):
        each.train_batch(batch())
    torch.testing.assert_close(weights(plain) - weights(trainer), rate * decay * before, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize(("steps", "decay"), [(0, 2 / 11), (10**6, 0.9)])
def test_the_average_follows_quickly_at_first(steps: int, decay: float, tmp_path: Path) -> None:
    trainer = make(tmp_path, ema=0.9)
    trainer.step, trainer.lines = steps, 500  # where steps are largest
    before = trainer.average["output.bias"].clone()
    trainer.train_batch(batch())
    now = trainer.network.state_dict()["output.bias"]
    torch.testing.assert_close(trainer.average["output.bias"], before.lerp(now, 1 - decay))


def test_gradients_are_cut_to_their_largest_norm(tmp_path: Path) -> None:
    trainer = make(tmp_path, clip=1e-3)
    trainer.train_batch(batch())
    assert float(gradients(trainer).norm()) == pytest.approx(1e-3, rel=0.01)


def test_a_gradient_that_is_not_finite_changes_nothing_though_the_loss_is(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    before = weights(trainer)
    trainer.network.output.bias.register_hook(lambda gradient: gradient / 0)
    assert np.isnan(trainer.train_batch(batch()))
    assert torch.equal(weights(trainer), before)
    assert (trainer.step, trainer.lines) == (0, 0)


def test_nothing_is_learned_from_the_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    look = LineNetwork.training_logits

    def noted(network: LineNetwork, images: Any) -> Any:
        seen[:] = look(network, images)
        for logits in seen:
            logits.retain_grad()
        return tuple(seen)

    monkeypatch.setattr(LineNetwork, "training_logits", noted)
    pixels = np.random.default_rng(0).random((64, 128), np.float32)
    lines = collate([Sample(pixels[:, :64], "abc"), Sample(pixels, "cab a")], ALPHABET)
    for weight in (0.0, 0.9):
        loss = make(tmp_path, consistency=weight).train_batch(lines)
        for logits in seen:
            assert logits.shape[1] == 32
            assert logits.grad[::2, :16].abs().sum(-1).min() > 0
            assert not logits.grad[::2, 16:].any()
        log_probs = seen[0].detach().float().log_softmax(-1)
        of_each = []
        for i, line in enumerate(log_probs):  # alone, in its own frames, for each of its labels
            frames, text = ((16, "abc"), (32, "cab a"))[i % 2]
            sizes = torch.tensor([frames]), torch.tensor([len(text)])
            labels = torch.tensor(ALPHABET.encode(text))
            of_each.append(float(functional.ctc_loss(line[:frames], labels, *sizes)))
        assert loss == pytest.approx(np.mean(of_each), rel=1e-4)


class Pair(Replicas):
    """Two processes, of which the other one is made up."""

    def __init__(self, rank: int = 0) -> None:
        super().__init__(rank)
        self.count = 2
        self.told: list[Sequence[float]] = []

    def average_gradients(self, parameters: Iterable[Any], loss: Any) -> Any:
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        return loss * 0 + 5.0

    def mean(self, values: Sequence[float]) -> list[float]:
        self.told.append(values)
        return [30.0, 8.0, 0.5]


def test_what_a_step_learns_is_the_mean_over_all_processes(tmp_path: Path) -> None:
    trainer = make(tmp_path, Pair(), clip=1e-3)
    assert trainer.train_batch(batch()) == 5.0
    assert trainer.lines == 4  # of either process
    found = gradients(trainer)
    assert float(found.norm()) == pytest.approx(1e-3, rel=0.01)
    assert torch.equal(found, found[:1].expand_as(found))


def test_processes_have_the_first_ones_clock_and_end_when_one_of_them_wants_to(tmp_path: Path) -> None:
    pairs = [Pair(rank) for rank in range(2)]
    for pair in pairs:
        trainer = make(tmp_path, pair)
        trainer.seconds, trainer.lines = 10.0 + 90.0 * pair.rank, 8
        assert trainer.agree(pair.rank == 1)
        assert (trainer.seconds, trainer.lines) == (30.0, 8)
    assert np.mean([pair.told[0] for pair in pairs], axis=0).tolist() == [10.0, 8.0, 0.5]


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_channels_come_last_only_where_that_is_safe_and_pays(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    cpu = torch.device("cpu")
    wide = torch.channels_last if capability == "AVX512" else torch.contiguous_format
    assert trainers._memory_format((16, 32), cpu) == wide
    for channels in ((16, 8), (8, 16), (24, 24)):  # there oneDNN writes outside its buffers
        assert trainers._memory_format(channels, cpu) == torch.contiguous_format


def test_the_frames_of_several_widths_are_those_of_each() -> None:
    widths = torch.arange(1, 14)
    assert frame_count(widths).tolist() == [frame_count(int(width)) for width in widths]


def test_the_network_is_trained_on_ink_from_0_to_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, look = [], LineNetwork.training_logits

    def noted(network: LineNetwork, images: Any) -> Any:
        seen.append((float(images.min()), float(images.max())))
        return look(network, images)

    monkeypatch.setattr(LineNetwork, "training_logits", noted)
    make(tmp_path).train_batch(batch())
    assert seen == [(0.0, 1.0)]


def test_the_second_head_learns_by_its_weight(tmp_path: Path) -> None:
    sizes = []
    for weight in (0.0, 0.1, 0.2):
        trainer = make(tmp_path, shortcut_weight=weight, clip=1e9)
        trainer.train_batch(batch())
        gradient = trainer.network.shortcut.weight.grad
        sizes.append(0.0 if gradient is None else float(gradient.norm()))
    assert sizes[0] == 0.0 < sizes[1]
    assert sizes[2] == pytest.approx(2 * sizes[1], rel=0.02)


def test_what_two_looks_disagree_on_is_learned_by_its_weight(tmp_path: Path) -> None:
    found = {}
    for weight in (1e-9, 0.3, 0.6):
        trainer = make(tmp_path, consistency=weight, clip=1e9)
        trainer.train_batch(batch())
        found[weight] = gradients(trainer)
    once, twice = (found[weight] - found[1e-9] for weight in (0.3, 0.6))
    assert float(once.norm()) > 0
    torch.testing.assert_close(twice, 2 * once, rtol=0.05, atol=1e-3 * float(once.norm()))


def test_looks_are_compared_over_the_frames_and_labels_of_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []

    def disagreement(log_probs: Any, frames: Any, lengths: Any) -> Any:
        told.extend([frames.tolist(), lengths.tolist()])
        return log_probs.sum() * 0.0

    monkeypatch.setattr(trainers, "disagreement", disagreement)
    make(tmp_path, consistency=0.2).train_batch(batch())
    assert told == [[16, 16], [3, 4]]


def test_the_seed_gives_the_weights_and_each_process_a_dropout_of_its_own(tmp_path: Path) -> None:
    drawn = []
    for seed, rank in ((1, 0), (1, 0), (1, 1), (2, 0)):
        trainer = make(tmp_path, Replicas(rank), seed=seed)
        drawn.append((float(weights(trainer).sum()), float(torch.rand(()))))
    first, again, second_process, other_seed = drawn
    assert first == again
    assert (second_process[0] == first[0], second_process[1] == first[1]) == (True, False)
    assert (other_seed[0] == first[0], other_seed[1] == first[1]) == (False, False)


def test_a_run_that_goes_on_takes_the_steps_that_it_would_have_taken(tmp_path: Path) -> None:
    whole = make(tmp_path)
    for seed in range(3):
        whole.train_batch(batch(seed))
    whole.rounds, whole.seconds = 2, 90.0
    whole.checkpoint().save(tmp_path / "last.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    resumed = make(tmp_path, seed=7)  # of which nothing may be left
    resumed.resume(Checkpoint.load(tmp_path / "last.pt"))
    assert resumed.rounds == whole.rounds + 1  # it draws other lines than every piece before it
    assert resumed.seconds == whole.seconds
    for trainer in (whole, resumed):
        trainer.train_batch(batch(3))
    torch.testing.assert_close(weights(resumed), weights(whole))
    for name, tensor in whole.average.items():
        torch.testing.assert_close(resumed.average[name], tensor)


def test_the_average_is_validated_and_exported_and_not_the_raw_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path)
    trainer.average["output.bias"] += 1.0
    read: list[LineNetwork] = []

    def greedy_texts(network: LineNetwork, samples: list[Sample], *_: object) -> list[str]:
        read.append(network)
        return ["x"] * len(samples)

    monkeypatch.setattr(trainers, "greedy_texts", greedy_texts)
    sets = {"own": [Sample(np.zeros((64, 64), np.float32), "ab")]}
    assert trainer.validate(sets) == {"own": 1.0}
    read.append(trainer.checkpoint().restore())
    for network in read:
        assert not network.training
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, trainer.average[name]), name
