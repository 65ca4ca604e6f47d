from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_server import bundle as bundles
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork
from longhand_server.runtime import TorchLineModel, load_line_model
from longhand_training.checkpoint import Checkpoint
from longhand_training.export import export_bundle


def exported(directory: Path) -> ModelBundle:
    """A bundle of a small network whose random weights are far from their start."""
    torch.manual_seed(3)
    alphabet = Alphabet("abcdef ")
    config = NetworkConfig(labels=len(alphabet), channels=(4, 8, 8, 16), hidden=24)
    network = LineNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    checkpoint = Checkpoint(config, "".join(alphabet.characters), network.state_dict(), {}, {"seed": 3})
    export_bundle(checkpoint, directory, name="small", version="1", description="for a test")
    return load_bundle(directory)


@pytest.mark.parametrize("which", ["small", "shipped"])
def test_onnx_and_pytorch_agree(which: str, tmp_path: Path) -> None:
    shipped = Path(bundles.__file__).parent / "models/en"
    bundle = exported(tmp_path) if which == "small" else load_bundle(shipped)
    random = np.random.default_rng(4)
    images = []
    for width in (64, 400, 900):
        ink = random.random((64, width), dtype=np.float32)
        images.append(np.where(ink > 0.8, ink, 0.0).astype(np.float32))
    # On a CPU the ONNX file is served; PyTorch reads the weights beside it.
    left = load_line_model(bundle, "cpu").log_probs(images)
    right = TorchLineModel(bundle, "cpu").log_probs(images)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_configuration_travels_with_the_weights(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    assert '"seed": 3' in (tmp_path / "bundle.json").read_text("utf-8")
    assert bundle.network["hidden"] == 24
