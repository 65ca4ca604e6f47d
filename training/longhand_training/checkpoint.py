"""Training state on disk: written whole or not at all, read without running any code from the file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from longhand_server.bundle import load_bundle
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork

Weights = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """Everything that a run needs to go on, and that an export needs.

    Attributes:
        network: size of the network.
        characters: the alphabet without the blank.
        weights: the averaged weights (what is validated and exported).
        training: raw weights, optimiser, counters; empty in a checkpoint kept only for its weights.
        settings: the configuration of the run, as plain values.
    """

    network: NetworkConfig
    characters: str
    weights: Weights
    training: dict[str, Any]
    settings: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes the file in one step: a run that is killed leaves the older file whole.

        Raises:
            OSError: it cannot be written (the path is in the message).
        """
        content = {**vars(self), "network": dataclasses.asdict(self.network)}
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:  # PyTorch's own does not say that a disk is full
                torch.save(content, file)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads a checkpoint.

        Raises:
            ValueError: not a readable checkpoint (the path and the reason are named).
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            network = NetworkConfig(**content.pop("network"))
            return cls(network=network, **content)
        except FileNotFoundError:
            raise ValueError(f"{path}: no such checkpoint") from None
        except Exception as error:
            # torch.load raises what pickle, zip and its own readers raise; all mean the same to a user. Of files that
            # hold other things it says in several lines how to run them all the same.
            known = isinstance(error, OSError | RuntimeError)
            reason = f": {str(error).splitlines()[0]}" if known else " (best.pt or last.pt of a run)"
            raise ValueError(f"{path}: not a readable checkpoint{reason}") from error

    @classmethod
    def from_bundle(cls, directory: Path) -> Checkpoint:
        """The weights of an exported model, to fine-tune from; a shortcut head that an older one lacks starts anew.

        Raises:
            InvalidModelError: not a whole bundle (what is wrong is named).
            ValueError: its weights do not fit its network.
        """
        bundle = load_bundle(directory)
        network = LineNetwork(bundle.network)
        with np.load(bundle.weights_path, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays}
        try:
            network.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise ValueError(f"{bundle.weights_path}: {error}") from error
        return cls(bundle.network, "".join(bundle.alphabet.characters), network.state_dict(), {}, {})

    def restore(self) -> LineNetwork:
        """The network with the averaged weights, in evaluation mode."""
        network = LineNetwork(self.network)
        network.load_state_dict(self.weights)
        return network.eval()


def mixed(first: Checkpoint, other: Checkpoint, share: float) -> Checkpoint:
    """The mean of two runs' weights, which often reads better than either where both began from the same ones.

    "Model soups", Wortsman et al. (ICML 2022).

    Args:
        first: has ``1 - share`` of the mean; its settings are kept, with the other's as ``mixed_with``.
        other: has ``share`` of it.
        share: between 0 and 1.

    Raises:
        ValueError: ``share`` is out of range, or the runs have different networks or alphabets.
    """
    if not 0 < share < 1:
        raise ValueError(f"share of the other weights: got {share}, need 0 < value < 1")
    size = dataclasses.replace(other.network, dropout=first.network.dropout)
    if size != first.network or other.characters != first.characters:
        raise ValueError(
            f"only like networks can be mixed: got {first.network} for {first.characters!r} and "
            f"{other.network} for {other.characters!r}"
        )
    weights = {
        name: tensor.lerp(other.weights[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in first.weights.items()
    }
    settings = {**first.settings, "mixed_with": {"share": share, **other.settings}}
    return Checkpoint(first.network, first.characters, weights, {}, settings)


def update_average(average: Weights, current: Weights, decay: float) -> None:
    """Moves the exponential moving average towards the current weights, in place."""
    whole = [name for name, tensor in current.items() if not tensor.dtype.is_floating_point]
    moving = [name for name in current if name not in whole]
    # All at once: a hundred small steps would keep a GPU waiting.
    step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    step([average[n] for n in moving], [current[n] for n in moving], None)
    for name in whole:
        average[name].copy_(current[name])
