"""A network in 8-bit integers, which a CPU computes in half the time, from its ONNX file and some training lines.

Convolutions and residual sums compute in integers throughout: the range of each layer's outputs is what the
lines showed (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018). LSTM weights are integers too, their inputs are rounded as they come. Normalisations go
into the convolutions before them; the output layer stays in single precision.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_training.dataset import LineDataset
from longhand_training.line_sets import make_sources
from longhand_training.source_config import SourceConfig

# Weights take 7 bits: with 8, AVX2's sum of two products overflows its 16 bits, and other processors, which have
# wider sums, would read other text.
_WEIGHTS: dict[str, Any] = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}


class _Lines(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, lines: Iterable[NDArray[np.float32]]) -> None:
        self._lines = iter(lines)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next line as the network's input; None behind the last."""
        line = next(self._lines, None)
        return None if line is None else {"image": line[np.newaxis, np.newaxis].astype(np.float32)}


def quantise_onnx(source: Path, out: Path, lines: Sequence[NDArray[np.float32]]) -> None:
    """Writes the 8-bit form of a network with the same inputs and outputs.

    Args:
        source: what :func:`longhand_training.export.export_onnx` wrote.
        out: the file to write.
        lines: (H, W) normalised lines like those it will read; some dozens do.

    Raises:
        ValueError: no lines.
    """
    if not lines:
        raise ValueError("an 8-bit network needs some lines to measure its ranges on, got none")
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        plain, integers = Path(folder) / "plain.onnx", Path(folder) / "integers.onnx"
        quant_pre_process(source, plain, skip_symbolic_shape=True)
        nodes = onnx.load(plain).graph.node
        quantize_static(
            plain,
            integers,
            _Lines(lines),
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=["Conv", "Add", "Relu"],
            nodes_to_exclude=[node.name for node in nodes if node.name.startswith("/output/")],
            activation_type=QuantType.QUInt8,
            **_WEIGHTS,
        )
        quantize_dynamic(integers, out, op_types_to_quantize=["LSTM"], **_WEIGHTS)


def calibration_lines(
    sources: SourceConfig, alphabet: Alphabet, line: LineFormat
) -> list[NDArray[np.float32]]:
    """Some training lines, always the same.

    Raises:
        ValueError: no source, or a damaged one (named).
    """
    dataset = LineDataset(make_sources(sources), alphabet, line, pixels_per_batch=1)
    rng = np.random.default_rng(11)
    return [dataset.sample(rng).pixels for _ in range(64)]


@contextmanager
def _without_advice() -> Iterator[None]:
    """ONNX Runtime's advice to do what is done already goes to the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
