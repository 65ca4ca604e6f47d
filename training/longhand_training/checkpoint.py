"""Training state on disk: written whole or not at all, read without running any code from the file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
        """Writes the file in one step: a run that is killed leaves the older file whole."""
        content = {**vars(self), "network": dataclasses.asdict(self.network)}
        temporary = path.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(path)

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
            # torch.load raises what pickle, zip and its own readers raise; all mean the same to a user.
            raise ValueError(f"{path}: not a readable checkpoint: {error}") from error

    def restore(self) -> LineNetwork:
        """The network with the averaged weights, in evaluation mode."""
        network = LineNetwork(self.network)
        network.load_state_dict(self.weights)
        return network.eval()


def averaged(average: Weights, current: Weights, decay: float) -> None:
    """Moves the exponential moving average towards the current weights, in place."""
    for name, tensor in current.items():
        if tensor.dtype.is_floating_point:
            average[name].lerp_(tensor.detach(), 1.0 - decay)
        else:
            average[name].copy_(tensor)
