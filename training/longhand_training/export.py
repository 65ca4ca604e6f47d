"""Turns a checkpoint into a bundle: ``python -m longhand_training.export runs/first/best.pt --out DIR``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from longhand_decoder import NgramLanguageModel
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import MANIFEST, load_bundle, write_manifest
from longhand_server.config import LineFormat
from longhand_server.errors import InvalidModelError
from longhand_server.network import LineNetwork
from longhand_training.checkpoint import Checkpoint, mixed
from longhand_training.command_line import HelpFormatter, add_own_lines, exit_status, refuse_parts_of_nothing
from longhand_training.iam import IAM_TRAINING
from longhand_training.quantise import calibration_lines, quantise_onnx
from longhand_training.source_config import SourceConfig
from longhand_training.text import escaped

# Settings of a bundle that was never tuned; ``longhand_training.tune`` replaces them.
UNTUNED: Mapping[str, Any] = {"beam_width": 50, "fold_capitals": True, "figures_weight": 0.35}
_INTEGERS = "model.int8.onnx"


def export_onnx(network: LineNetwork, path: Path, height: int) -> None:
    """Writes the network for ONNX Runtime: ``image`` (1, 1, H, W) -> ``log_probs`` (1, T, V), W free.

    Weights are stored in half precision, which halves the file, and cast once at load. Convolutions and
    normalisations stay apart: ONNX Runtime joins them at load in full precision, whereas joined weights would be
    rounded once more, to other values than PyTorch's.
    """
    example = torch.zeros(1, 1, height, 400)
    with warnings.catch_warnings():
        # The tracing exporter warns of its age; the newer one unrolls the LSTM and fixes the width.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=["image"],
            output_names=["log_probs"],
            dynamic_axes={"image": {3: "width"}, "log_probs": {1: "frames"}},
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    model = onnx.load(str(path))
    _halve(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve(model: onnx.ModelProto) -> None:
    """Stores large float32 initialisers as float16 with a Cast in front of their users."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 64 or "norm" in tensor.name:
            continue
        stored = f"{tensor.name}.half"
        casts.append(helper.make_node("Cast", [stored], [tensor.name], to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def export_weights(network: LineNetwork, path: Path) -> None:
    """Writes the weights by parameter name as a NumPy archive, half precision; the shortcut head for fine-tuning."""
    arrays = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        array = tensor.detach().cpu().numpy()
        # Variances can be too small for half precision.
        arrays[name] = array if "norm" in name else array.astype(np.float16)
    np.savez_compressed(path, **arrays)


def export_bundle(
    checkpoint: Checkpoint,
    out: Path,
    *,
    name: str,
    version: str,
    description: str,
    word_model: Path | None = None,
    character_model: Path | None = None,
    decoder: Mapping[str, Any] = UNTUNED,
    label_priors: Sequence[float] | None = None,
    lines: Sequence[NDArray[np.float32]] = (),
) -> None:
    """Writes a bundle folder that :func:`longhand_server.bundle.load_bundle` reads.

    The files are made in a folder within it and moved when all are there: an export that fails changes nothing.

    Args:
        checkpoint: its averaged weights are exported.
        out: the folder; made when it is not there, its files replaced when it is.
        name: of the model.
        version: of the model.
        description: one line for people.
        word_model: KenLM file to copy in.
        character_model: KenLM file to copy in.
        decoder: settings of the beam search.
        label_priors: (V,) how often the network says each label, the blank first; None for none.
        lines: normalised lines to measure the 8-bit network's ranges on; without them there is none.

    Raises:
        ValueError: a language model is not there or is no KenLM file (named), or ``out`` is no folder, or its path
            is not UTF-8.
        OSError: a file cannot be written.
    """
    for model in (word_model, character_model):
        if model is not None:
            NgramLanguageModel(model)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is no folder; a model is one")
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{out}: PyTorch takes no path that is not UTF-8") from error
    out.mkdir(parents=True, exist_ok=True)
    # Within it: the folder may be a volume of its own, and files are moved in a moment only on one.
    with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as folder:
        made = Path(folder)
        files = _write_networks(checkpoint, made, lines)
        for role, source, target in (
            ("word_model", word_model, "word.klm"),
            ("character_model", character_model, "char.klm"),
        ):
            if source is not None:
                shutil.copyfile(source, made / target)
                files[role] = target
        write_manifest(
            made,
            name=name,
            version=version,
            description=description,
            alphabet=Alphabet(checkpoint.characters),
            line=LineFormat(),
            network=checkpoint.network,
            decoder=decoder,
            files=files,
            training=_writable(checkpoint.settings),
            label_priors=label_priors,
        )
        for file in files.values():
            (made / file).replace(out / file)
        if "onnx_int8" not in files:  # an earlier export's belongs to other weights
            (out / _INTEGERS).unlink(missing_ok=True)
        (made / MANIFEST).replace(out / MANIFEST)


def _writable(value: Any) -> Any:
    """Settings as JSON takes them: names of files may be odd bytes."""
    if isinstance(value, dict):
        return {name: _writable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


def _write_networks(
    checkpoint: Checkpoint, folder: Path, lines: Sequence[NDArray[np.float32]]
) -> dict[str, str]:
    """Writes the network in each of its forms; gives the file name of each role."""
    network = checkpoint.restore()
    # Both formats hold the same rounded weights.
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if "norm" not in key:
                parameter.copy_(parameter.half().float())
    files = {"onnx": "model.onnx", "weights": "weights.npz"}
    export_onnx(network, folder / files["onnx"], LineFormat().height)
    export_weights(network, folder / files["weights"])
    if lines:
        quantise_onnx(folder / files["onnx"], folder / _INTEGERS, lines)
        files["onnx_int8"] = _INTEGERS
    return files


def reading_like(directory: Path, characters: str) -> dict[str, Any]:
    """What belongs to reading and not to the weights of a bundle, as arguments of :func:`export_bundle`.

    Args:
        directory: the bundle.
        characters: alphabet of the weights that are to be read with it.

    Raises:
        InvalidModelError: not a whole bundle.
        ValueError: it has another alphabet.
    """
    bundle = load_bundle(directory)
    theirs = "".join(bundle.alphabet.characters)
    if theirs != characters:
        raise ValueError(f"--like {directory}: has the alphabet {theirs!r}, the checkpoint {characters!r}")
    return {
        "description": bundle.description,
        "word_model": bundle.word_model_path,
        "character_model": bundle.character_model_path,
        "decoder": bundle.decoder,
        "label_priors": bundle.label_priors,
    }


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--mix: got {text!r} as the share, need a number between 0 and 1") from None


@exit_status("export", ValueError, OSError, InvalidModelError)
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of a run (best.pt)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--name", default="en", help="of the model (default: %(default)s)")
    parser.add_argument("--version", default="1", help="of the model (default: %(default)s)")
    parser.add_argument("--description", help='one line for people (default: "Handwritten text lines")')
    parser.add_argument(
        "--like",
        type=Path,
        metavar="MODEL",
        help="model folder whose language models, decoder settings, label priors and description to take; what is "
        "named besides wins",
    )
    parser.add_argument("--word-model", type=Path, help="KenLM file (longhand_training.language_model)")
    parser.add_argument("--character-model", type=Path, help="KenLM file")
    parser.add_argument(
        "--mix",
        nargs=2,
        metavar=("CHECKPOINT", "SHARE"),
        help="export the mean with another run's weights, of which they are this share (0 to 1)",
    )
    group = parser.add_argument_group("lines to fix the ranges of the 8-bit network on, for CPUs")
    group.add_argument("--data", type=Path, help="folder with the packs")
    add_own_lines(group, IAM_TRAINING)
    options = parser.parse_args()
    sources = SourceConfig(
        data=options.data, folders=tuple(options.folder), iam=options.iam, iam_ids=options.iam_ids
    )
    refuse_parts_of_nothing(options)
    checkpoint = Checkpoint.load(options.checkpoint)
    if options.mix is not None:
        checkpoint = mixed(checkpoint, Checkpoint.load(Path(options.mix[0])), _share(options.mix[1]))
    lines = []
    if options.data or options.folder or options.iam:
        lines = calibration_lines(sources, Alphabet(checkpoint.characters), LineFormat())
    reading: dict[str, Any] = {"description": "Handwritten text lines"}
    if options.like is not None:
        reading = reading_like(options.like, checkpoint.characters)
    for name in ("description", "word_model", "character_model"):
        if getattr(options, name) is not None:
            reading[name] = getattr(options, name)
    export_bundle(checkpoint, options.out, name=options.name, version=options.version, lines=lines, **reading)
    size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
    print(f"{options.out}: {size:.1f} MB")
    if not lines:
        print(
            "without the 8-bit network that halves the time on a CPU: name --data, --folder or --iam for one"
        )


if __name__ == "__main__":
    sys.exit(main())
