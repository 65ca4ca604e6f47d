"""A network that reads drawn bars without any training, so that tests know what every image says.

Character number k of the alphabet is drawn as two blocks of ink, in band k + 2 from the top and from the
bottom, of 16 bands (cropping shifts the outer ones a little). The network sums the ink of each such pair and
calls the pair that has some. It is a real ONNX file read by the real runtime, and its answer depends on every
column of its image.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from longhand_server.alphabet import Alphabet
from longhand_server.bundle import write_manifest
from longhand_server.config import LineFormat, NetworkConfig

ALPHABET = "abcde "
_HEIGHT, _STRIDE, _BANDS = 64, 4, 16
_MARK, _GAP = 16, 12  # width of a character and of the paper after it, px
_SHARPNESS = 40.0


def draw_text(text: str, *, scale: int = 1, noise: int = 0) -> NDArray[np.uint8]:
    """The grey image that reads as ``text``, between two full bars that fix its top and bottom."""
    width = 40 + len(text) * (_MARK + _GAP) + 40
    ink = np.zeros((_HEIGHT, width), bool)
    ink[:, 8:14] = ink[:, -14:-8] = True
    # Strokes at the distance of ordinary letters, so that the marks keep their size.
    for left in range(8, width - 14, 20):
        ink[:7, left : left + 5] = ink[-7:, left : left + 5] = True
    band = _HEIGHT // _BANDS
    for place, character in enumerate(text):
        left = 40 + place * (_MARK + _GAP)
        top = (2 + ALPHABET.index(character)) * band
        ink[top : top + band, left : left + _MARK] = True
        ink[_HEIGHT - top - band : _HEIGHT - top, left : left + _MARK] = True
    grey = np.where(ink, 20, 240).astype(np.int16)
    if noise:
        grey = grey + np.random.default_rng(noise).integers(-8, 9, grey.shape)
    page = np.pad(grey.clip(0, 255).astype(np.uint8), 8, constant_values=240)
    return np.kron(page, np.ones((scale, scale), np.uint8))


def draw_image(text: str, kind: str = "PNG", *, scale: int = 1, noise: int = 0) -> bytes:
    """The file of :func:`draw_text`."""
    buffer = io.BytesIO()
    Image.fromarray(draw_text(text, scale=scale, noise=noise)).save(buffer, kind)
    return buffer.getvalue()


def write_onnx(path: Path) -> None:
    """Writes the network: input ``image`` (1, 1, 64, W), output ``log_probs`` (1, T, V)."""
    labels = len(ALPHABET) + 1
    weights = np.zeros((_BANDS, labels), np.float32)
    for k in range(len(ALPHABET)):
        weights[[k + 2, _BANDS - 3 - k], k + 1] = _SHARPNESS / 2
    # Blank wins on bare paper and on the full bars; strokes at the edges do not count.
    weights[2:-2, 0] = 0.2 * _SHARPNESS / 2
    bias = np.zeros(labels, np.float32)
    bias[0] = 0.4 * _SHARPNESS
    band = _HEIGHT // _BANDS
    nodes = [
        helper.make_node(
            "AveragePool",
            ["image"],
            ["pooled"],
            kernel_shape=[band, _STRIDE],
            strides=[band, _STRIDE],
            ceil_mode=1,
        ),
        helper.make_node("Squeeze", ["pooled", "axis"], ["bands"]),
        helper.make_node("Transpose", ["bands"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["frames", "weights"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "bars",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, _HEIGHT, "width"])],
        [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, [1, "frames", labels])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_bundle(
    folder: Path,
    *,
    name: str = "toy",
    version: str = "1.0.0",
    files: Mapping[str, bytes] | None = None,
    decoder: Mapping[str, object] | None = None,
) -> Path:
    """Writes a bundle round the network; ``files`` adds or replaces some, such as ``{"word.klm": ...}``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(folder / "model.onnx")
    np.savez(folder / "weights.npz")  # only a GPU would read them
    for file, data in (files or {}).items():
        (folder / file).write_bytes(data)
    roles = {
        "onnx": "model.onnx",
        "weights": "weights.npz",
        "word_model": "word.klm",
        "character_model": "char.klm",
    }
    write_manifest(
        folder,
        name=name,
        version=version,
        description="Reads bars, for tests",
        alphabet=Alphabet(ALPHABET),
        line=LineFormat(height=_HEIGHT, frame_stride=_STRIDE),
        network=NetworkConfig(labels=len(ALPHABET) + 1),
        decoder=decoder or {"beam_width": 20},
        files={role: file for role, file in roles.items() if (folder / file).exists()},
        training={},
    )
    return folder
