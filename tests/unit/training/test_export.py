from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_decoder import CtcBeamSearchDecoder
from longhand_server import bundle as bundles
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork
from longhand_server.runtime import TorchLineModel, load_line_model
from longhand_training.checkpoint import Checkpoint
from longhand_training.dataset import folder_samples
from longhand_training.export import export_bundle
from longhand_training.metrics import character_error_rate
from longhand_training.quantise import quantise_onnx

SHIPPED = Path(bundles.__file__).parent / "models/en"
SAMPLES = Path(__file__).parents[4] / "shared/data/samples/labels.tsv"


def exported(directory: Path, lines: Sequence[NDArray[np.float32]] = ()) -> ModelBundle:
    """A bundle of a small network whose random weights are far from their start."""
    torch.manual_seed(3)
    alphabet = Alphabet("abcdef ")
    config = NetworkConfig(labels=len(alphabet), channels=(4, 8, 8, 16), hidden=24)
    network = LineNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    checkpoint = Checkpoint(config, "".join(alphabet.characters), network.state_dict(), {}, {"seed": 3})
    export_bundle(checkpoint, directory, name="small", version="1", description="for a test", lines=lines)
    return load_bundle(directory)


def speckled(*widths: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(4)
    lines = []
    for width in widths:
        ink = random.random((64, width), dtype=np.float32)
        lines.append(np.where(ink > 0.8, ink, 0.0).astype(np.float32))
    return lines


@pytest.mark.parametrize("which", ["small", "shipped"])
def test_onnx_and_pytorch_agree(which: str, tmp_path: Path) -> None:
    bundle = exported(tmp_path) if which == "small" else load_bundle(SHIPPED)
    images = speckled(64, 400, 900)
    # On a CPU the ONNX file is served; PyTorch reads the weights beside it.
    left = load_line_model(bundle, "cpu", "full").log_probs(images)
    right = TorchLineModel(bundle, "cpu").log_probs(images)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_configuration_travels_with_the_weights(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    assert '"seed": 3' in (tmp_path / "bundle.json").read_text("utf-8")
    assert bundle.network["hidden"] == 24


def test_the_8_bit_network_is_served_where_there_is_one_and_follows_the_other(tmp_path: Path) -> None:
    images = speckled(64, 400, 900)
    bundle = exported(tmp_path, images)
    short, full = load_line_model(bundle, "cpu"), load_line_model(bundle, "cpu", "full")
    assert (short.runtime, full.runtime) == ("ONNX Runtime, 8-bit", "ONNX Runtime")
    assert (tmp_path / "model.int8.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size
    for a, b in zip(short.log_probs(images), full.log_probs(images), strict=True):
        assert 0 < np.abs(np.exp(a) - np.exp(b)).max() < 0.05
    # The output layer is no integer one, which would have 256 values: its differences are more than these could have.
    wide = short.log_probs(images)[-1]
    assert len(np.unique((wide - wide[:, :1]).round(4))) > 600


def test_without_lines_there_is_no_8_bit_network(tmp_path: Path) -> None:
    exported(tmp_path, speckled(64))
    bundle = exported(tmp_path)
    assert bundle.onnx_int8_path is None
    assert not (tmp_path / "model.int8.onnx").exists()
    assert load_line_model(bundle, "cpu").runtime == "ONNX Runtime"
    with pytest.raises(ValueError, match="got none"):
        quantise_onnx(bundle.onnx_path, tmp_path / "none.onnx", [])


@pytest.mark.skipif(not SAMPLES.is_file(), reason=f"{SAMPLES} is not there")
def test_the_shipped_8_bit_network_reads_what_the_other_reads() -> None:
    bundle = load_bundle(SHIPPED)
    decoder = CtcBeamSearchDecoder(bundle.alphabet.labels)
    images = [sample.pixels for sample in folder_samples(SAMPLES, bundle.line)]
    short, full = (
        [decoder.decode_greedy(o).text for o in load_line_model(bundle, "cpu", precision).log_probs(images)]
        for precision in ("auto", "full")
    )
    assert character_error_rate(full, short) < 0.05
