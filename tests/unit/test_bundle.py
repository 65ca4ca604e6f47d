from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longhand_server.alphabet import Alphabet
from longhand_server.bundle import MANIFEST, load_bundle, update_decoder, write_manifest
from longhand_server.config import LineFormat, NetworkConfig
from longhand_server.errors import InvalidModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.onnx", "weights.npz", "word.klm"):
        (tmp_path / name).write_bytes(name.encode())
    write_manifest(
        tmp_path,
        name="tiny",
        version="7",
        description="for tests",
        alphabet=Alphabet("abc"),
        line=LineFormat(),
        network=NetworkConfig(labels=4),
        decoder={"beam_width": 9},
        files={"onnx": "model.onnx", "weights": "weights.npz", "word_model": "word.klm"},
        training={},
    )
    return tmp_path


def test_what_was_written_is_read(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert (bundle.name, bundle.version, bundle.description) == ("tiny", "7", "for tests")
    assert bundle.alphabet.characters == ("a", "b", "c")
    assert bundle.line == LineFormat()
    assert bundle.network == NetworkConfig(labels=4)
    assert bundle.decoder == {"beam_width": 9}
    assert bundle.word_model_path == folder / "word.klm"
    assert bundle.character_model_path is None


def test_decoder_settings_can_be_replaced(folder: Path) -> None:
    update_decoder(folder, {"beam_width": 20, "word_weight": 0.3})
    assert load_bundle(folder).decoder == {"beam_width": 20, "word_weight": 0.3}
    assert load_bundle(folder).label_priors is None
    update_decoder(folder, {}, [0.7, 0.2, 0.1, 0])
    assert load_bundle(folder).label_priors == (0.7, 0.2, 0.1, 0.0)


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        change(content)
        (folder / MANIFEST).write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / MANIFEST).unlink(), "bundle.json: No such file"),
        (lambda f: (f / MANIFEST).write_text("{"), "not valid JSON"),
        (lambda f: (f / MANIFEST).write_text("[" * 100_000), "not valid JSON"),
        (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
        (_edit(lambda c: c.update(format=2)), "format 2, this version reads format 1"),
        (_edit(lambda c: c.pop("name")), "name: need a str"),
        (_edit(lambda c: c.update(alphabet="aab")), "stand twice"),
        (_edit(lambda c: c.update(alphabet="ab")), "4 labels, the alphabet with the blank 3"),
        (_edit(lambda c: c["line"].update(height=0)), "line.height: got 0"),
        (_edit(lambda c: c["network"].update(depth=3)), "depth"),
        (
            _edit(lambda c: c.update(label_priors=[0.5] * 3)),
            "label_priors: need 4 numbers from 0 to 1, got 3",
        ),
        (_edit(lambda c: c.update(label_priors=[0.5, 0.5, "1", 0])), "label_priors: need 4 numbers"),
        (_edit(lambda c: c.update(label_priors=[0.5, 0.5, float("nan"), 0])), "label_priors: need 4 numbers"),
        (_edit(lambda c: c.update(label_priors=[1.0, 0, 0, 0])), "label_priors: every character has 0"),
        (_edit(lambda c: c["files"].pop("onnx")), "files.onnx is missing"),
        (_edit(lambda c: c["files"]["onnx"].update(path="../model.onnx")), "leaves the folder"),
        (lambda f: (f / "model.onnx").write_bytes(b"other"), "model.onnx: damaged or exchanged"),
        (lambda f: (f / "word.klm").write_bytes((f / "word.klm").read_bytes()[::-1]), "damaged or exchanged"),
        (lambda f: (f / "word.klm").unlink(), "word.klm: No such file"),
    ],
)
def test_a_damaged_bundle_is_named_in_one_line(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(InvalidModelError, match=message) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
