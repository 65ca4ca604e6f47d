"""A model on disk: one folder with weights, alphabet, line format, language models and decoder settings.

bundle.json      what is here, and the SHA-256 of every file
model.onnx       the network for ONNX Runtime: image (1, 1, H, W) -> log_probs (1, T, V)
model.int8.onnx  the same in 8-bit integers, optional
weights.npz      the same weights for PyTorch, by parameter name
word.klm         KenLM model over words, optional
char.klm         KenLM model over characters, optional
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat, NetworkConfig
from longhand_server.errors import InvalidModelError

FORMAT = 1
MANIFEST = "bundle.json"
_LARGEST_MANIFEST = 1_000_000


@dataclass(frozen=True)
class ModelBundle:
    """A model folder whose files are all there and unchanged.

    Attributes:
        name, version, description: for people and for requests.
        alphabet: labels of the network; 0 is the blank.
        line: shape of the images that the network reads.
        network: its size.
        decoder: fields of ``longhand_decoder.BeamSearchOptions``, tuned for this model.
        label_priors: how often the network says each label, on average over frames, the blank first; or None.
        directory: the folder.
        digest: SHA-256 of ``bundle.json``, which holds that of every other file.
        onnx_path, weights_path: the network, twice.
        onnx_int8_path: the network in 8-bit integers, or None.
        word_model_path, character_model_path: KenLM files, or None.
    """

    name: str
    version: str
    description: str
    alphabet: Alphabet
    line: LineFormat
    network: NetworkConfig
    decoder: Mapping[str, Any]
    label_priors: tuple[float, ...] | None
    directory: Path
    digest: bytes
    onnx_path: Path
    onnx_int8_path: Path | None
    weights_path: Path
    word_model_path: Path | None
    character_model_path: Path | None

    @property
    def greedy_decoder(self) -> dict[str, Any]:
        """:attr:`decoder` for the best label of each frame.

        The tuned temperature weighs the network against language models; without them it only lowers confidences.
        """
        return {**self.decoder, "temperature": 1.0}


def load_bundle(directory: Path | str) -> ModelBundle:
    """Reads a model folder and checks every file against its hash.

    Raises:
        InvalidModelError: the folder, a file or a setting is missing or wrong; one line that says which.
    """
    directory = Path(directory)
    content, digest = _manifest(directory)
    where = directory / MANIFEST
    try:
        alphabet = Alphabet(list(_get(content, "alphabet", str, where)))
        line = LineFormat(**_get(content, "line", dict, where))
        network = NetworkConfig(**_get(content, "network", dict, where))
    except (TypeError, ValueError) as error:
        raise InvalidModelError(f"{where}: {error}") from error
    if network.labels != len(alphabet):
        raise InvalidModelError(
            f"{where}: the network has {network.labels} labels, the alphabet with the blank {len(alphabet)}"
        )
    files = _get(content, "files", dict, where)
    return ModelBundle(
        name=_get(content, "name", str, where),
        version=_get(content, "version", str, where),
        description=_get(content, "description", str, where),
        alphabet=alphabet,
        line=line,
        network=network,
        decoder=_get(content, "decoder", dict, where),
        label_priors=_label_priors(content, network.labels, where),
        directory=directory,
        digest=digest,
        onnx_path=_required_file(files, "onnx", where),
        onnx_int8_path=_file(files, "onnx_int8", where),
        weights_path=_required_file(files, "weights", where),
        word_model_path=_file(files, "word_model", where),
        character_model_path=_file(files, "character_model", where),
    )


def write_manifest(
    directory: Path,
    *,
    name: str,
    version: str,
    description: str,
    alphabet: Alphabet,
    line: LineFormat,
    network: NetworkConfig,
    decoder: Mapping[str, Any],
    files: Mapping[str, str],
    training: Mapping[str, Any],
    label_priors: Sequence[float] | None = None,
) -> None:
    """Writes ``bundle.json`` for the files that lie in a folder.

    Args:
        directory: the bundle's folder.
        name: for people and for requests.
        version: the same.
        description: one line for people.
        alphabet: labels of the network.
        line: shape of the images that the network reads.
        network: its size.
        decoder: fields of ``longhand_decoder.BeamSearchOptions``.
        files: file name by role: ``onnx``, ``weights``, and ``onnx_int8``, ``word_model``, ``character_model`` if
            there.
        training: how the weights came about, for people.
        label_priors: (V,) how often the network says each label, the blank first; None for none.
    """
    content = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "description": description,
        "alphabet": "".join(alphabet.characters),
        "line": asdict(line),
        "network": asdict(network),
        "decoder": dict(decoder),
        "label_priors": None if label_priors is None else list(label_priors),
        "files": {role: _describe(directory / file) for role, file in files.items()},
        "training": dict(training),
    }
    _replace_manifest(directory, content)


def update_decoder(
    directory: Path, decoder: Mapping[str, Any], label_priors: Sequence[float] | None = None
) -> None:
    """Replaces the decoder settings of a bundle, and its label priors: (V,), or None for a bundle without.

    Raises:
        InvalidModelError: no readable ``bundle.json`` there.
    """
    content, _ = _manifest(directory)
    content["decoder"] = dict(decoder)
    content["label_priors"] = None if label_priors is None else list(label_priors)
    _replace_manifest(directory, content)


def _replace_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Writes ``bundle.json`` in one step: who reads it meanwhile, or after a full disk, finds a whole one."""
    temporary = directory / f".{MANIFEST}.tmp"
    try:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        temporary.replace(directory / MANIFEST)
    finally:
        temporary.unlink(missing_ok=True)


def _manifest(directory: Path) -> tuple[dict[str, Any], bytes]:
    """What ``bundle.json`` says, and its SHA-256."""
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise InvalidModelError(f"{path}: larger than {_LARGEST_MANIFEST} bytes")
        data = path.read_bytes()
        content = json.loads(data.decode("utf-8"))
        # An escape can name half of a surrogate pair, which no answer could hold.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except OSError as error:
        raise InvalidModelError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InvalidModelError(f"{path}: format {got!r}, this version reads format {FORMAT}")
    return content, hashlib.sha256(data).digest()


def _get(content: Mapping[str, Any], key: str, kind: type, where: Path) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        raise InvalidModelError(f"{where}: {key}: need a {kind.__name__}, got {type(value).__name__}")
    return value


def _label_priors(content: Mapping[str, Any], labels: int, where: Path) -> tuple[float, ...] | None:
    if content.get("label_priors") is None:
        return None
    priors = _get(content, "label_priors", list, where)
    if len(priors) != labels or not all(type(prior) in (int, float) and 0 <= prior <= 1 for prior in priors):
        raise InvalidModelError(
            f"{where}: label_priors: need {labels} numbers from 0 to 1, got {len(priors)} entries"
        )
    if sum(priors[1:]) <= 0:
        raise InvalidModelError(f"{where}: label_priors: every character has 0")
    return tuple(map(float, priors))


def _required_file(files: Mapping[str, Any], role: str, where: Path) -> Path:
    path = _file(files, role, where)
    if path is None:
        raise InvalidModelError(f"{where}: files.{role} is missing")
    return path


def _file(files: Mapping[str, Any], role: str, where: Path) -> Path | None:
    """The file that has a role in the bundle, unchanged; None where there is none."""
    entry = files.get(role)
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise InvalidModelError(f"{where}: files.{role}: need path, sha256 and bytes")
    path: Path = where.parent / entry["path"]
    if path.parent != where.parent:
        raise InvalidModelError(f"{where}: files.{role}: {entry['path']!r} leaves the folder")
    try:
        found = _describe(path)
    except OSError as error:
        raise InvalidModelError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # no file can have that name
        raise InvalidModelError(f"{where}: files.{role}: {entry['path']!a}: {error}") from error
    if found["bytes"] != entry.get("bytes") or found["sha256"] != entry.get("sha256"):
        raise InvalidModelError(
            f"{path}: damaged or exchanged: {found['bytes']} bytes, sha256 {found['sha256'][:12]}..., "
            f"bundle.json says {entry.get('bytes')} bytes, {str(entry.get('sha256'))[:12]}..."
        )
    return path


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": path.name, "sha256": digest, "bytes": path.stat().st_size}
