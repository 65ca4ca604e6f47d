from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training or gpu)")

from longhand_server.bundle import load_bundle
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork, frame_count
from longhand_server.runtime import load_line_model
from longhand_training.checkpoint import Checkpoint
from longhand_training.export import export_bundle

SMALL = NetworkConfig(labels=7, channels=(4, 6, 8, 10), blocks=(1, 1, 1), hidden=12)


@pytest.fixture(scope="module")
def network() -> LineNetwork:
    torch.manual_seed(3)
    network = LineNetwork(SMALL)
    # Running statistics like those of a trained network, so that paper does not happen to give 0.
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return network.eval()


def images(*widths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.random((64, width), dtype=np.float32) for width in widths]


def test_frames_are_normalised_log_probabilities(network: LineNetwork) -> None:
    with torch.inference_mode():
        output = network(torch.from_numpy(images(101)[0])[None, None])
    assert output.shape == (1, frame_count(101), SMALL.labels) == (1, 26, 7)
    assert output.dtype == torch.float32
    np.testing.assert_allclose(output.exp().sum(-1).numpy(), 1.0, atol=1e-5)


def test_padding_and_company_never_change_a_result(network: LineNetwork) -> None:
    lines = images(40, 41, 97, 160, 203)
    wide = max(line.shape[1] for line in lines) + 37
    batch = torch.zeros(len(lines), 1, 64, wide)
    for row, line in zip(batch, lines, strict=True):
        row[0, :, : line.shape[1]] = torch.from_numpy(line)
    widths = torch.tensor([line.shape[1] for line in lines])
    with torch.inference_mode():
        together = network(batch, widths)
        for i, line in enumerate(lines):
            alone = network(torch.from_numpy(line)[None, None])[0]
            np.testing.assert_allclose(together[i, : len(alone)], alone, atol=2e-5)


def test_lines_that_come_widest_first_read_the_same(network: LineNetwork) -> None:
    batch = torch.rand(4, 1, 64, 200)
    widths = torch.tensor([200, 200, 96, 17])
    for row, width in zip(batch, widths.tolist(), strict=True):
        row[..., width:] = 0
    with torch.inference_mode():
        in_order = network(batch, widths)
        reverse = network(batch.flip(0), widths.flip(0)).flip(0)
    for first, second, width in zip(in_order, reverse, widths.tolist(), strict=True):
        np.testing.assert_allclose(first[: frame_count(width)], second[: frame_count(width)], atol=1e-5)


def test_folded_normalisation_changes_nothing(network: LineNetwork) -> None:
    folded = copy.deepcopy(network)
    folded.fold_norms()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    batch = torch.rand(3, 1, 64, 160)
    batch[1, ..., 90:] = 0
    widths = torch.tensor([160, 90, 160])
    with torch.inference_mode():
        np.testing.assert_allclose(folded(batch, widths), network(batch, widths), atol=2e-5)


def test_widths_may_be_on_another_device_than_the_images() -> None:
    # As a GPU's callers have them; the device "meta" stands for it and computes shapes only.
    images = torch.zeros(2, 1, 64, 128, device="meta")
    features = LineNetwork(SMALL).eval().to("meta").features(images, torch.tensor([100, 128]))
    assert (features.shape, features.device.type) == ((2, 10, 32), "meta")


def test_the_exported_onnx_and_the_weights_agree_with_each_other(
    network: LineNetwork, tmp_path: Path
) -> None:
    saved = Checkpoint(SMALL, "abcdef", dict(network.state_dict()), {}, {"seed": 3})
    export_bundle(saved, tmp_path, name="tiny", version="1", description="random weights")
    bundle = load_bundle(tmp_path)
    onnx_model = load_line_model(bundle, "cpu")
    rounded = LineNetwork(bundle.network).eval()
    with np.load(bundle.weights_path, allow_pickle=False) as arrays:
        weights = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays}
    missing, unexpected = rounded.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("shortcut.") or name.endswith("num_batches_tracked") for name in missing)
    lines = images(64, 200, 332)
    for line, output in zip(lines, onnx_model.log_probs(lines), strict=True):
        with torch.inference_mode():
            expected = rounded(torch.from_numpy(line)[None, None])[0].numpy()
        np.testing.assert_allclose(output, expected, atol=1e-3)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="labels >= 2"):
        NetworkConfig(labels=1)
    with pytest.raises(ValueError, match="4 channels"):
        NetworkConfig(labels=5, channels=(1, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dropout"):
        NetworkConfig(labels=5, dropout=1.0)
