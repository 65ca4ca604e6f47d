from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.training_runs import own_lines
from longhand_decoder import CtcBeamSearchDecoder
from longhand_server import bundle as bundles
from longhand_server.alphabet import Alphabet
from longhand_server.bundle import ModelBundle, load_bundle, update_decoder
from longhand_server.config import LineFormat, NetworkConfig
from longhand_server.network import LineNetwork
from longhand_server.runtime import TorchLineModel, load_line_model
from longhand_training import export as exports
from longhand_training.checkpoint import Checkpoint
from longhand_training.export import export_bundle, main
from longhand_training.line_sets import folder_samples
from longhand_training.metrics import character_error_rate
from longhand_training.quantise import calibration_lines, quantise_onnx
from longhand_training.source_config import SourceConfig

SHIPPED = Path(bundles.__file__).parent / "models/en"
SAMPLES = Path(__file__).parents[4] / "shared/data/samples/labels.tsv"


def small_checkpoint(characters: str = "abcdef ", widest: int = 16, seed: int = 3) -> Checkpoint:
    """A small network whose random weights are far from their start."""
    torch.manual_seed(seed)
    alphabet = Alphabet(characters)
    config = NetworkConfig(labels=len(alphabet), channels=(4, 8, 8, widest), hidden=24)
    network = LineNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Checkpoint(config, characters, network.state_dict(), {}, {"seed": seed})


def exported(directory: Path, lines: Sequence[NDArray[np.float32]] = ()) -> ModelBundle:
    export_bundle(
        small_checkpoint(), directory, name="small", version="1", description="for a test", lines=lines
    )
    return load_bundle(directory)


def language_model(path: Path, *words: str) -> Path:
    """A KenLM model over words, as text, which KenLM reads as well."""
    entries = "".join(f"-1.0\t{word}\t0.0\n" for word in ("<unk>", "<s>", "</s>", *words))
    counts = f"ngram 1={len(words) + 3}\nngram 2=1\n"
    grams = f"\\1-grams:\n{entries}\n\\2-grams:\n-0.5\t<s> {words[0]}\n"
    path.write_text(f"\\data\\\n{counts}\n{grams}\n\\end\\\n", "utf-8")
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    return main()


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


def test_onnx_and_pytorch_get_the_same_rounded_weights(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(widest=64)
    export_bundle(checkpoint, tmp_path, name="wide", version="1", description="")
    bundle = load_bundle(tmp_path)
    with np.load(bundle.weights_path) as arrays:
        weights = dict(arrays)
    same = []
    for tensor in onnx.load(bundle.onnx_path).graph.initializer:
        name = tensor.name.removesuffix(".half")
        if name in weights:
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weights[name])
            same.append(name)
    assert "output.bias" in same
    assert any("conv" in name for name in same)
    # Variances can be too small for half precision, and are as they were.
    variances = [name for name in same if name.endswith("running_var") and weights[name].size == 64]
    assert variances
    for name in variances:
        np.testing.assert_array_equal(weights[name], checkpoint.weights[name].numpy())


def test_fine_tuning_gets_every_weight_back_the_shortcut_heads_too(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    export_bundle(checkpoint, tmp_path / "model", name="x", version="1", description="")
    back = Checkpoint.from_bundle(tmp_path / "model")
    assert back.weights.keys() == checkpoint.weights.keys()
    for name, tensor in checkpoint.weights.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(back.weights[name], tensor, atol=2e-3, rtol=2e-3)


def test_the_configuration_travels_with_the_weights(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    assert '"seed": 3' in (tmp_path / "bundle.json").read_text("utf-8")
    assert bundle.network.hidden == 24


def test_the_8_bit_network_is_served_where_there_is_one_and_follows_the_other(tmp_path: Path) -> None:
    images = speckled(64, 400, 900)
    # Ranges of one blank line alone would fit nothing.
    bundle = exported(tmp_path, [np.zeros((64, 200), np.float32), *images])
    short, full = load_line_model(bundle, "cpu"), load_line_model(bundle, "cpu", "full")
    assert (short.runtime, full.runtime) == ("ONNX Runtime, 8-bit", "ONNX Runtime")
    assert (tmp_path / "model.int8.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size
    for a, b in zip(short.log_probs(images), full.log_probs(images), strict=True):
        assert 0 < np.abs(np.exp(a) - np.exp(b)).max() < 0.05
    # The output layer is no integer one, which would have 256 values: its differences are more than these could have.
    wide = short.log_probs(images)[-1]
    assert len(np.unique((wide - wide[:, :1]).round(4))) > 600


def test_weights_of_the_8_bit_network_take_7_bits_and_a_scale_for_each_channel(tmp_path: Path) -> None:
    exported(tmp_path, speckled(64, 200))
    arrays = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "model.int8.onnx").graph.initializer
    }
    weights = {name: array for name, array in arrays.items() if array.dtype == np.int8 and array.ndim > 1}
    assert {3, 4} <= {array.ndim for array in weights.values()}  # of the LSTM, and of convolutions
    # With 8 bits the sums of AVX2 overflow, and processors would read different text.
    assert max(np.abs(array.astype(int)).max() for array in weights.values()) == 64
    convolutions = [name for name, array in weights.items() if array.ndim == 4]
    for name in convolutions:
        assert arrays[name.replace("_quantized", "_scale")].shape == weights[name].shape[:1]
    assert len(convolutions) > 5


def test_ranges_are_always_fixed_on_the_same_lines(tmp_path: Path) -> None:
    sources = SourceConfig(folders=(own_lines(tmp_path / "lines", "hello", "other"),))
    one, other = (calibration_lines(sources, Alphabet("helotr"), LineFormat()) for _ in range(2))
    assert len(one) == 64
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_mean_of_two_runs_is_exported_with_its_8_bit_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [small_checkpoint(seed=seed) for seed in (3, 4)]
    for number, run in enumerate(runs):
        run.save(tmp_path / f"{number}.pt")
    monkeypatch.setattr(exports, "calibration_lines", lambda *_: speckled(64))
    arguments = [tmp_path / "0.pt", "--mix", tmp_path / "1.pt", "0.25", "--folder", tmp_path]
    assert export(monkeypatch, *arguments, "--out", tmp_path / "model") == 0
    bundle = load_bundle(tmp_path / "model")
    assert bundle.onnx_int8_path is not None
    with np.load(bundle.weights_path) as arrays:
        mean = 0.75 * runs[0].weights["output.weight"] + 0.25 * runs[1].weights["output.weight"]
        np.testing.assert_allclose(arrays["output.weight"], mean.numpy(), atol=1e-3)


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


@pytest.mark.parametrize(
    ("model", "message"),
    [("absent.klm", "absent.klm"), ("labels.tsv", "labels.tsv"), (".", "language model")],
)
def test_an_export_that_fails_changes_nothing(
    model: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "model"
    exported(out, speckled(64))
    before = content(out)
    small_checkpoint().save(tmp_path / "best.pt")
    (tmp_path / "labels.tsv").write_text("0.png\thello\n")
    assert export(monkeypatch, tmp_path / "best.pt", "--out", out, "--character-model", tmp_path / model) == 2
    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert error.count("\n") == 1
    assert message in error
    assert content(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "labels.tsv", "model"]


def test_an_export_that_fails_half_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path / "model")
    before = content(tmp_path / "model")
    word_model = language_model(tmp_path / "word.arpa", "abc")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        export_bundle(
            small_checkpoint("fedcba "),
            tmp_path / "model",
            name="other",
            version="2",
            description="",
            word_model=word_model,
        )
    assert content(tmp_path / "model") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "word.arpa"]


def test_what_belongs_to_reading_is_taken_from_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    word, other = (
        language_model(tmp_path / "w.arpa", "abc"),
        language_model(tmp_path / "o.arpa", "def", "fed"),
    )
    old = tmp_path / "old"
    shown: dict[str, Any] = {"name": "old", "version": "7", "description": "Lines of six letters"}
    export_bundle(small_checkpoint(), old, **shown, word_model=word, character_model=word)
    tuned, priors = {"beam_width": 7, "prior_weight": 0.5}, tuple(np.full(8, 0.125))
    update_decoder(old, tuned, priors)
    checkpoint, out = tmp_path / "best.pt", tmp_path / "new"
    small_checkpoint().save(checkpoint)
    arguments = ["--out", out, "--like", old, "--name", "new", "--character-model", other]
    assert export(monkeypatch, checkpoint, *arguments) == 0
    new = load_bundle(out)
    assert (new.name, new.version, new.description) == ("new", "1", "Lines of six letters")
    assert (new.decoder, new.label_priors) == (tuned, priors)
    assert new.word_model_path is not None
    assert new.word_model_path.read_bytes() == word.read_bytes()
    assert new.character_model_path is not None
    assert new.character_model_path.read_bytes() == other.read_bytes()
    assert '"seed": 3' in (out / "bundle.json").read_text("utf-8")
    # Its own folder will do: what is there is read before it is replaced.
    assert export(monkeypatch, checkpoint, "--out", out, "--like", out) == 0
    assert load_bundle(out).character_model_path is not None

    capsys.readouterr()
    small_checkpoint("fedcba ").save(checkpoint)
    for like, message in ((old, "has the alphabet 'abcdef '"), (tmp_path / "none", "No such file")):
        assert export(monkeypatch, checkpoint, "--out", tmp_path / "bad", "--like", like) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_runs_of_folders_whose_names_are_odd_bytes_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = small_checkpoint()
    name = os.fsdecode(b"r\xe9cit")
    checkpoint.settings = {"own_lines": [name], "seed": 3, "mixed_with": {"init": f"{name}/last.pt"}}
    checkpoint.save(tmp_path / "best.pt")
    assert export(monkeypatch, tmp_path / "best.pt", "--out", tmp_path / "model") == 0
    assert json.loads((tmp_path / "model" / "bundle.json").read_text("utf-8"))["training"] == {
        "own_lines": [r"r\udce9cit"],
        "seed": 3,
        "mixed_with": {"init": r"r\udce9cit/last.pt"},
    }
    # Below such a folder PyTorch writes nothing.
    assert export(monkeypatch, tmp_path / "best.pt", "--out", tmp_path / name) == 2
    assert capsys.readouterr().err == (
        f"export: {tmp_path}/r\\udce9cit: PyTorch takes no path that is not UTF-8\n"
    )
    assert not (tmp_path / name).exists()


def test_a_manifest_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path)
    before = content(tmp_path)
    (tmp_path / ".bundle.json.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        update_decoder(tmp_path, {"beam_width": 3})
    assert content(tmp_path) == before


def test_a_share_that_is_no_number_is_named_with_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best.pt"
    small_checkpoint().save(best)
    assert export(monkeypatch, best, "--out", tmp_path / "model", "--mix", best, "abc") == 2
    error = capsys.readouterr().err
    assert error == "export: --mix: got 'abc' as the share, need a number between 0 and 1\n"


def test_an_alphabet_of_ones_own_is_the_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_checkpoint(" żółw").save(tmp_path / "best.pt")
    assert export(monkeypatch, tmp_path / "best.pt", "--out", tmp_path / "model") == 0
    assert json.loads((tmp_path / "model" / "bundle.json").read_text("utf-8"))["alphabet"] == " żółw"
    assert load_bundle(tmp_path / "model").alphabet.labels == ("", *" żółw")
