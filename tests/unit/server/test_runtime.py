"""The runtimes: what they load, what they refuse, and that a batch changes nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from helpers.toy_model import write_bundle, write_onnx
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import ModelBundle, load_bundle, write_manifest
from longhand_server.config import LineFormat, NetworkConfig
from longhand_server.errors import ConfigurationError, InvalidModelError
from longhand_server.runtime import TorchLineModel, choose_device, load_line_model

_HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not _HAS_TORCH, reason="PyTorch is not installed (extra: gpu)")


def test_onnx_runtime_reads_lines_of_any_width(tmp_path: Path) -> None:
    model = load_line_model(load_bundle(write_bundle(tmp_path)), "cpu")
    images = [np.zeros((64, width), np.float32) for width in (4, 64, 1000)]
    outputs = model.log_probs(images)
    assert [output.shape for output in outputs] == [(1, 7), (16, 7), (250, 7)]
    assert all(output.dtype == np.float32 for output in outputs)
    assert (model.device, model.runtime) == ("cpu", "ONNX Runtime")


def test_the_eight_bit_network_is_used_where_there_is_one_and_nobody_wants_full_precision(
    tmp_path: Path,
) -> None:
    bundle = load_bundle(write_bundle(tmp_path))
    bundle = replace(bundle, onnx_int8_path=bundle.onnx_path)
    assert load_line_model(bundle, "cpu").runtime == "ONNX Runtime, 8-bit"
    assert load_line_model(bundle, "cpu", "full").runtime == "ONNX Runtime"


def test_a_network_that_does_not_fit_its_bundle_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    write_manifest(
        folder,
        name="toy",
        version="1",
        description="",
        alphabet=Alphabet("abc"),
        line=LineFormat(),
        network=NetworkConfig(labels=4),
        decoder={},
        files={"onnx": "model.onnx", "weights": "weights.npz"},
        training={},
    )
    with pytest.raises(InvalidModelError, match=r"gives float32 \(64, 7\), need float32 \(64, 4\)"):
        load_line_model(load_bundle(folder), "cpu")


@pytest.mark.parametrize(
    ("end", "message"), [("Identity", "gives no log-probabilities"), ("Cast", "gives float64")]
)
def test_a_network_that_gives_something_else_is_refused(tmp_path: Path, end: str, message: str) -> None:
    write_onnx(tmp_path / "right.onnx")
    network = onnx.load(tmp_path / "right.onnx")
    last = network.graph.node[-1]
    if end == "Cast":
        network.graph.node.append(
            onnx.helper.make_node("Cast", ["last"], list(last.output), to=TensorProto.DOUBLE)
        )
        network.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
        last.output[0] = "last"
    else:
        last.op_type = end
        del last.attribute[:]
    files = {"model.onnx": network.SerializeToString()}
    with pytest.raises(InvalidModelError, match=message):
        load_line_model(load_bundle(write_bundle(tmp_path / "wrong", files=files)), "cpu")


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cpu:1", "cuda:", "cuda:²", "cuda:99999"])
def test_unknown_devices_are_refused(wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="need auto, cpu, cuda or cuda:N"):
        choose_device(wanted)


def test_a_cuda_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="cuda:63"):
        choose_device("cuda:63")
    assert choose_device("cpu") == "cpu"


@pytest.fixture
def random_bundle(tmp_path: Path) -> ModelBundle:
    """A bundle with a small network of random weights, for PyTorch."""
    import torch

    from longhand_server.network import LineNetwork

    config = NetworkConfig(labels=7, channels=(4, 8, 8, 16), hidden=24)
    torch.manual_seed(5)
    network = LineNetwork(config)
    write_bundle(tmp_path)  # its ONNX file is not used here
    weights = {
        name: value.numpy().astype(np.float16 if value.is_floating_point() else value.numpy().dtype)
        for name, value in network.state_dict().items()
    }
    np.savez(tmp_path / "weights.npz", **weights)
    write_manifest(
        tmp_path,
        name="random",
        version="1",
        description="",
        alphabet=Alphabet("abcdef"),
        line=LineFormat(),
        network=config,
        decoder={},
        files={"onnx": "model.onnx", "weights": "weights.npz"},
        training={},
    )
    return load_bundle(tmp_path)


@needs_torch
def test_a_line_reads_the_same_in_any_batch(random_bundle: ModelBundle) -> None:
    model = TorchLineModel(random_bundle, "cpu")
    random = np.random.default_rng(2)
    images = [random.random((64, 4 * width), dtype=np.float32) for width in random.integers(5, 200, 24)]
    alone = [model.log_probs([image])[0] for image in images]
    for _ in range(5):
        order = random.permutation(len(images))[: random.integers(2, len(images))]
        batch = model.log_probs([images[index] for index in order])
        for index, output in zip(order, batch, strict=True):
            assert output.shape == (images[index].shape[1] // 4, 7)
            np.testing.assert_allclose(output, alone[index], atol=1e-4)


@needs_torch
def test_weights_that_do_not_fit_are_named(random_bundle: ModelBundle) -> None:
    with np.load(random_bundle.weights_path) as arrays:
        weights = {name: arrays[name] for name in arrays}
    del weights["output.bias"]
    np.savez(random_bundle.weights_path, **weights)
    with pytest.raises(InvalidModelError, match=r"lacks \['output.bias'\]"):
        TorchLineModel(random_bundle, "cpu")
    random_bundle.weights_path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InvalidModelError, match="do not fit"):
        TorchLineModel(random_bundle, "cpu")


@needs_torch
@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(random_bundle: ModelBundle) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    random = np.random.default_rng(2)
    images = [random.random((64, 4 * width), dtype=np.float32) for width in random.integers(5, 200, 24)]
    on_gpu = TorchLineModel(random_bundle, "cuda:0").log_probs(images)
    on_cpu = TorchLineModel(random_bundle, "cpu").log_probs(images)
    for left, right in zip(on_gpu, on_cpu, strict=True):
        np.testing.assert_allclose(left, right, atol=5e-2)


def test_that_nothing_is_reported_about_the_machine(tmp_path: Path) -> None:
    # ONNX Runtime's own telemetry, which is on by default, keeps its events and a number for the machine there.
    load = (
        "import sys; from longhand_server.bundle import load_bundle; "
        "from longhand_server.runtime import load_line_model; load_line_model(load_bundle(sys.argv[1]), 'cpu')"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", load, str(write_bundle(tmp_path / "model"))],
        env=environment | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        check=True,
    )
    assert list(home.rglob("*")) == []
