"""Runs a model's network: ONNX Runtime on a CPU, PyTorch on a GPU.

Both libraries are imported only when they are needed; a CPU server has no PyTorch.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from longhand_server.bundle import ModelBundle
from longhand_server.errors import ConfigurationError, InvalidModelError
from longhand_server.gpus import count_gpus

if TYPE_CHECKING:
    import torch

# Width of the blank line that every model reads once before it serves, px.
_TRIAL_WIDTH = 256
# On a GPU images are padded to a multiple of this, so that few shapes occur, px.
_GPU_WIDTH_STEP = 64


class LineModel(Protocol):
    """A network that reads normalised lines. Thread-safe."""

    @property
    def device(self) -> str:
        """Where it computes: ``"cpu"`` or ``"cuda:0"``."""

    @property
    def runtime(self) -> str:
        """The library that computes, for people."""

    def log_probs(self, images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Reads lines.

        Args:
            images: Of each line (H, W_i) float32, ink towards 1, paper 0.

        Returns:
            Of each line (T_i, V) float32 natural-log probabilities, T_i = ceil(W_i / frame stride), blank =
            label 0. A line's values do not depend on the other lines.
        """


class OnnxLineModel:
    """The network through ONNX Runtime on a CPU: one line at a time, each on one thread.

    Several threads may call it at once; that is how it uses several cores.

    Args:
        bundle: The model.
        precision: ``"auto"``: its 8-bit network where it has one; ``"full"``: the other.

    Raises:
        InvalidModelError: The ONNX file cannot be loaded or is not such a network.
    """

    device = "cpu"

    def __init__(self, bundle: ModelBundle, precision: str = "auto") -> None:
        import onnxruntime

        path, self.runtime = bundle.onnx_path, "ONNX Runtime"
        if precision == "auto" and bundle.onnx_int8_path is not None:
            path, self.runtime = bundle.onnx_int8_path, "ONNX Runtime, 8-bit"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Lines differ in width, so a memory plan made for one does not fit the next.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            self._input = self._session.get_inputs()[0].name
            self._output = self._session.get_outputs()[0].name
        except Exception as error:  # its exceptions share no base class of their own
            raise InvalidModelError(
                f"model {bundle.name}: {path} is no ONNX network ({_first_line(error)})"
            ) from error

    def log_probs(self, images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """See :meth:`LineModel.log_probs`."""
        return [
            self._session.run([self._output], {self._input: image[np.newaxis, np.newaxis]})[0][0]
            for image in images
        ]


class TorchLineModel:
    """The network through PyTorch, on a CUDA device or on a CPU.

    Args:
        bundle: The model.
        device: A CUDA device or the CPU.
        precision: ``"auto"``: half on a CUDA device, single on a CPU; ``"full"``: single.

    Raises:
        InvalidModelError: The weights do not fit the network.
    """

    runtime = "PyTorch"

    def __init__(self, bundle: ModelBundle, device: str, precision: str = "auto") -> None:
        import torch

        from longhand_server.network import LineNetwork

        self.device = device
        self._device = torch.device(device)
        self._stride = bundle.line.frame_stride
        try:
            network = LineNetwork(bundle.network)
            # numpy leaves a path's file open where it cannot read it.
            with bundle.weights_path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                weights = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays}
            missing, unexpected = network.load_state_dict(weights, strict=False)
        except Exception as error:  # zip, numpy and torch each have their own
            raise InvalidModelError(
                f"model {bundle.name}: the weights in {bundle.weights_path} do not fit ({_first_line(error)})"
            ) from error
        # The shortcut head serves training only, and older bundles lack it.
        missing = [name for name in missing if not name.startswith("shortcut.")]
        if missing or unexpected:
            raise InvalidModelError(
                f"model {bundle.name}: {bundle.weights_path} lacks {missing} and has unknown {unexpected}"
            )
        self._network = network.eval()
        self._on_gpu = self._device.type == "cuda"
        self._dtype = torch.float16 if self._on_gpu and precision == "auto" else torch.float32
        if self._on_gpu:
            # Fewer and faster kernels: on a GPU the many small steps cost more than the arithmetic.
            self._network.fold_norms()
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network.to(self._device, self._dtype)

    def log_probs(self, images: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """See :meth:`LineModel.log_probs`."""
        import torch

        if not images:
            return []
        # The widest first: so the network need not sort them.
        order = sorted(range(len(images)), key=lambda number: -images[number].shape[1])
        widths = [images[number].shape[1] for number in order]
        batch = self._batch([images[number] for number in order])
        blank = len(batch) - len(images)
        with torch.inference_mode():
            on_device = batch.to(self._device, non_blocking=True).to(self._dtype)
            outputs = self._network(on_device, torch.tensor(widths + [self._stride] * blank))
            values = self._download(outputs[: len(images)])
        read = {
            number: value[: -(-width // self._stride)]
            for number, width, value in zip(order, widths, values, strict=True)
        }
        return [read[number] for number in range(len(images))]

    def _batch(self, images: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """(N, 1, H, W) with paper to the right of each line; for a GPU some blank lines at the end."""
        import torch

        width = -(-max(image.shape[1] for image in images) // _GPU_WIDTH_STEP) * _GPU_WIDTH_STEP
        # A GPU prepares itself anew for every shape: blank lines fill the batch up to a power of two.
        count = 1 << (len(images) - 1).bit_length() if self._on_gpu else len(images)
        # From pinned memory, which PyTorch keeps for the next batch, a GPU fetches by itself.
        batch = torch.empty((count, 1, images[0].shape[0], width), pin_memory=self._on_gpu)
        rows: NDArray[np.float32] = batch.numpy()
        for row, image in zip(rows, images, strict=False):
            row[0, :, : image.shape[1]] = image
            row[0, :, image.shape[1] :] = 0.0
        rows[len(images) :] = 0.0
        return batch

    def _download(self, outputs: torch.Tensor) -> NDArray[np.float32]:
        import torch

        if not self._on_gpu:
            return np.asarray(outputs.numpy(), np.float32)
        host = torch.empty(outputs.shape, pin_memory=True)
        host.copy_(outputs, non_blocking=True)
        # The thread sleeps until the GPU is done; waiting by default keeps a core busy.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))
        done.synchronize()
        return np.asarray(host.numpy(), np.float32)


def choose_device(wanted: str) -> str:
    """Turns ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into the device that is there.

    Raises:
        ConfigurationError: No such word, or a CUDA device is wanted and not there.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", wanted):
        raise ConfigurationError(f"device: got {wanted!r}, need auto, cpu, cuda or cuda:N")
    kind, _, number = wanted.partition(":")
    # Loading PyTorch takes seconds and 200 MB; where there is no GPU it would only say so.
    if kind == "cpu" or (kind == "auto" and not count_gpus()):
        return "cpu"
    count = _cuda_devices()
    index = int(number or 0)
    if index < count:
        return f"cuda:{index}"
    if kind == "auto":
        return "cpu"
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            f"device: got {wanted!r}, but PyTorch is not installed; pip install '.[gpu]' in Longhand's folder"
        )
    raise ConfigurationError(f"device: got {wanted!r}, but PyTorch finds {count} CUDA devices")


def load_line_model(bundle: ModelBundle, device: str, precision: str = "auto") -> LineModel:
    """Loads a bundle's network and lets it read one blank line.

    Args:
        bundle: The model.
        device: ``"cpu"`` or ``"cuda:N"``, as :func:`choose_device` returns it.
        precision: ``"full"``: single; ``"auto"``: 8-bit on a CPU where the bundle has such a network, half on a GPU.

    Raises:
        InvalidModelError: It cannot be loaded, or what it puts out does not fit the bundle.
    """
    model: LineModel = (
        OnnxLineModel(bundle, precision) if device == "cpu" else TorchLineModel(bundle, device, precision)
    )
    blank = np.zeros((bundle.line.height, _TRIAL_WIDTH), np.float32)
    try:
        output: Any = model.log_probs([blank])[0]
    except Exception as error:  # whatever the runtime raises, the bundle is at fault
        raise InvalidModelError(
            f"model {bundle.name}: its network cannot read a line ({_first_line(error)})"
        ) from error
    wanted = (-(-_TRIAL_WIDTH // bundle.line.frame_stride), len(bundle.alphabet))
    if output.shape != wanted or output.dtype != np.float32:
        raise InvalidModelError(
            f"model {bundle.name}: its network gives {output.dtype} {output.shape}, need float32 {wanted}"
        )
    if not np.allclose(np.exp(output).sum(axis=1), 1.0, atol=1e-2):
        raise InvalidModelError(f"model {bundle.name}: its network gives no log-probabilities")
    return model


def gpu_memory(device: str) -> int:
    """Bytes that PyTorch holds on a CUDA device."""
    import torch

    return torch.cuda.memory_reserved(torch.device(device))


def _cuda_devices() -> int:
    if importlib.util.find_spec("torch") is None:
        return 0
    try:
        import torch
    except (ImportError, OSError) as error:  # half installed, or made for another system
        raise ConfigurationError(f"device: PyTorch cannot be loaded ({_first_line(error)})") from error
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
