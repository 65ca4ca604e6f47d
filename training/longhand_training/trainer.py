"""One training run: network, averaged weights, optimiser, and a step."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from longhand_server.alphabet import Alphabet
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork, frame_count
from longhand_training.checkpoint import Checkpoint, update_average
from longhand_training.config import TrainingConfig
from longhand_training.dataset import Batch, Sample
from longhand_training.greedy import greedy_texts
from longhand_training.metrics import character_error_rate
from longhand_training.replicas import Replicas
from longhand_training.views import disagreement, two_views

# Fewer hold some ten errors at most. One line or two are often read without any, before and after.
FEW_LINES = 20
# What a checkpoint keeps beside weights and optimiser.
_COUNTERS = (
    "seconds",
    "step",
    "lines",
    "rounds",
    "best",
    "best_step",
    "before",
    "stale",
    "set_sizes",
    "set_digests",
    "validated_step",
)


class Trainer:
    """One training run: network, averaged weights, optimiser, counters.

    Args:
        config: size of the network and how it is trained.
        alphabet: what it writes.
        device: where it is trained.
        out: the run's folder; nothing is written by this class itself.
        replicas: the processes that train together; None for this one alone.
    """

    def __init__(
        self,
        config: TrainingConfig,
        alphabet: Alphabet,
        device: torch.device,
        out: Path,
        replicas: Replicas | None = None,
    ) -> None:
        self.config, self.alphabet, self.device, self.out = config, alphabet, device, out
        self.replicas = replicas or Replicas()
        torch.manual_seed(config.seed)
        size = NetworkConfig(
            labels=len(alphabet),
            channels=cast(Any, config.channels),
            blocks=cast(Any, config.blocks),
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
        )
        network = LineNetwork(size).to(device)
        self.memory_format = _memory_format(config.channels, device)
        self.network = network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type == "cuda",
        )
        self.ctc = nn.CTCLoss(zero_infinity=True)
        self.bfloat16 = _has_fast_bfloat16(device)
        # The same weights in every process, but not the same dropout.
        torch.manual_seed(config.seed + self.replicas.rank)
        self.seconds, self.step, self.lines, self.rounds = 0.0, 0, 0, 0
        self.best = math.inf
        # The step whose weights best.pt holds; None where an older checkpoint does not tell.
        self.best_step: int | None = None
        # The mean CER of the weights that the run began from, on the same sets; None for new weights.
        self.before: float | None = None
        self.stale = 0
        # Lines of each validation set that `best` is the mean over; empty before the first validation.
        self.set_sizes: dict[str, int] = {}
        # Hashes of their names and texts.
        self.set_digests: dict[str, str] = {}
        self.validated_step = 0
        # Whether it began from another run's weights, which it is to do better than.
        self.initialised = False
        # What the lines came from, for the record.
        self.sources: dict[str, Any] = {}

    @property
    def progress(self) -> float:
        """Part of the run that is done, 0 to 1."""
        if self.config.lines:
            return min(self.lines / self.config.lines, 1.0)
        return min(self.seconds / (60.0 * self.config.minutes), 1.0)

    def learning_rate(self) -> float:
        """Linear warm-up, then a half cosine to 1 % of the peak."""
        done, warm = self.progress, self.config.warm_up
        if done < warm:
            return self.config.learning_rate * (0.05 + 0.95 * done / warm)
        share = (done - warm) / (1.0 - warm)
        return self.config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * share)))

    def train_batch(self, batch: Batch) -> float:
        """One optimiser step; gives the mean CTC loss per label, or NaN when the step was left out.

        A step whose loss or gradient is not finite changes nothing: half-precision arithmetic overflows now
        and then (and bfloat16 matrix tiles under some hypervisors give a rare NaN of their own).
        """
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        images = batch.images.to(self.device, non_blocking=True).float().mul_(1.0 / 255.0)
        if self.config.consistency:
            images = two_views(images, batch.widths)
        images = images.contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            main, shortcut = self.network.training_logits(images)
        log_probs = main.float().log_softmax(-1)
        loss = self._ctc(log_probs, batch)
        total = loss
        if self.config.shortcut_weight:
            total = total + self.config.shortcut_weight * self._ctc(shortcut.float().log_softmax(-1), batch)
        if self.config.consistency:
            apart = disagreement(log_probs, frame_count(batch.widths), batch.target_lengths)
            total = total + self.config.consistency * apart
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        mean_loss = self.replicas.average_gradients(self.network.parameters(), loss.detach())
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        # One look at both: a GPU stands still from here until its next work is queued.
        shown, size = torch.stack([mean_loss, norm]).tolist()
        if not math.isfinite(shown + size):
            for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            return math.nan
        self.optimiser.step()
        self.step += 1
        self.lines += len(batch.widths) * self.replicas.count
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        update_average(self.average, self.network.state_dict(), decay)
        return float(shown)

    def agree(self, stop: bool) -> bool:
        """Makes the clocks of all processes one; whether any of them wants to stop."""
        # The first process's clock: the others wait while it validates, which does not count.
        clock = self.seconds * self.replicas.count if self.replicas.rank == 0 else 0.0
        self.seconds, lines, stops = self.replicas.mean([clock, self.lines, stop])
        self.lines = round(lines)
        return stops > 0

    def _ctc(self, log_probs: Tensor, batch: Batch) -> Tensor:
        """The loss of the batch's lines, each of them as often as ``log_probs`` (N x looks, T, V) has it."""
        looks = len(log_probs) // len(batch.widths)
        targets = batch.targets.to(self.device, non_blocking=True).repeat(looks)
        frames, lengths = frame_count(batch.widths).repeat(looks), batch.target_lengths.repeat(looks)
        return cast(Tensor, self.ctc(log_probs.transpose(0, 1), targets, frames, lengths))

    def validates_on(self, sets: Mapping[str, Sequence[Sample]]) -> None:
        """Notes what is validated on; with other sets than before, the best mean so far compares with nothing."""
        sizes = {name: len(samples) for name, samples in sets.items()}
        digests = {name: _digest(samples) for name, samples in sets.items()}
        before, now = (
            ", ".join(f"{name} ({count} lines)" for name, count in each.items()) or "none"
            for each in (self.set_sizes, sizes)
        )
        # A checkpoint of version 1.6 has no sizes, one of 1.7 no digests.
        other = [name for name, digest in digests.items() if self.set_digests.get(name, digest) != digest]
        if self.set_sizes and (sizes != self.set_sizes or other):
            changed = f"were {before} and are {now}" if sizes != self.set_sizes else f"{now} have other lines"
            print(f"validation sets {changed}: best.pt is chosen anew", flush=True)
            self.best, self.before, self.stale = math.inf, None, 0
        self.set_sizes, self.set_digests = sizes, digests

    def validate(self, sets: dict[str, list[Sample]]) -> dict[str, float]:
        """Greedy CER of each set, with the averaged weights."""
        network = LineNetwork(self.network.config)
        network.load_state_dict(self.average)
        network.eval().to(self.device)
        rates = {}
        for name, samples in sets.items():
            texts = greedy_texts(network, samples, self.alphabet, self.device)
            rates[name] = character_error_rate([s.text for s in samples], texts)
        return rates

    @property
    def validates_on_few(self) -> bool:
        """Whether the validation lines are so few that they tell better weights from worse by chance at most."""
        return sum(self.set_sizes.values()) < FEW_LINES

    def summary(self) -> str:
        """What ``best.pt`` holds, in words for the end of a run."""
        step = "" if self.best_step is None else f" of step {self.best_step}"
        if not self.set_sizes:
            return f"best.pt holds the weights{step}"
        rate = f"CER {100 * self.best:.2f} %"
        if self.before is None:
            return f"best.pt holds the weights{step}, {rate}"
        if self.best_step == 0:
            return f"best.pt holds the weights that this run began from, {rate}: nothing since read better"
        return f"best.pt holds the weights{step}, {rate}, {100 * self.before:.2f} % before"

    def checkpoint(self) -> Checkpoint:
        """The state as it is now."""
        training = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        characters = "".join(self.alphabet.characters)
        settings = {
            **dataclasses.asdict(self.config),
            **self.sources,
            "processes": self.replicas.count,
            "torch": str(torch.__version__),
        }
        return Checkpoint(self.network.config, characters, self.average, training, settings)

    def resume(self, saved: Checkpoint) -> None:
        """Goes on where a checkpoint left off.

        Raises:
            ValueError: another network or alphabet than this run's.
        """
        self._take_weights(saved, saved.training["network"])
        self.optimiser.load_state_dict(saved.training["optimiser"])
        for group in self.optimiser.param_groups:  # which hold the settings as they were
            group["weight_decay"] = self.config.weight_decay
        for name in _COUNTERS:
            if name in saved.training:
                setattr(self, name, saved.training[name])
        # Older checkpoints lack the last two, and have a best of 0 where nothing was validated on.
        if "validated_step" not in saved.training:
            self.validated_step = self.step
        if not self.set_sizes and self.best == 0.0:
            self.best = math.inf
        self.rounds += 1

    def initialise(self, saved: Checkpoint) -> None:
        """Starts a new run from another run's averaged weights (fine-tuning)."""
        self._take_weights(saved, saved.weights)
        self.initialised = True

    def _take_weights(self, saved: Checkpoint, weights: dict[str, Tensor]) -> None:
        mine = "".join(self.alphabet.characters)
        if saved.characters != mine:
            raise ValueError(f"checkpoint has the alphabet {saved.characters!r}, this run {mine!r}")
        if dataclasses.replace(saved.network, dropout=self.config.dropout) != self.network.config:
            raise ValueError(f"checkpoint has the network {saved.network}, this run {self.network.config}")
        self.network.load_state_dict(weights)
        self.average = {k: v.to(self.device).clone() for k, v in saved.weights.items()}


def _digest(samples: Sequence[Sample]) -> str:
    return hashlib.sha256(repr([(sample.name, sample.text) for sample in samples]).encode()).hexdigest()


def _has_fast_bfloat16(device: torch.device) -> bool:
    """bfloat16 pays on a GPU and on a CPU that multiplies in it (AMX, AVX512-BF16); elsewhere it loses."""
    if device.type == "cuda":
        return True
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _memory_format(channels: Sequence[int], device: torch.device) -> torch.memory_format:
    """Channels last is faster, but only for whole blocks of 16 channels, and not on a CPU without AVX-512.

    With other channels oneDNN 3.12 (PyTorch 2.13) writes outside its buffers in the backward pass of a strided
    1x1 convolution on a CPU: the heap is damaged and the process dies, or worse, does not. Its AVX2 code takes the
    gradient of the weights a fifth of a training step faster in channels-first order.
    """
    whole = all(count % 16 == 0 for count in channels)
    wide = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return torch.channels_last if whole and wide else torch.contiguous_format
