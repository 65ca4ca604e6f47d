"""Words of scanned lines: where they lie, and new lines made of them."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")

from longhand_decoder import CtcBeamSearchDecoder
from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.image import normalise_line
from longhand_training.line_sets import make_sources
from longhand_training.packs import LabelledImage, decode_trusted
from longhand_training.scan_words import ScanWordBank, read_cuts
from longhand_training.source_config import SourceConfig
from longhand_training.sources import ScanSource
from longhand_training.word_cuts import align, cut_line, main

ROOT = Path(__file__).resolve().parents[3]
PAPER = 220


def _png(grey: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", grey)
    assert done
    return data.tobytes()


def _words(*columns: tuple[int, int], width: int, height: int = 48, top: int = 12) -> np.ndarray:
    """A line whose words are black bars from column to column."""
    grey = np.full((height, width), PAPER, np.uint8)
    for left, right in columns:
        grey[top : top + 24, left:right:2] = 20
    return grey


@pytest.mark.parametrize("seed", range(30))
def test_alignment_is_the_best_of_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [[1, 2], [1, 1], [2, 1, 2], [1]][seed % 4]
    log_probs = np.log(rng.dirichlet(np.ones(3) * 0.7, size=6)).astype(np.float32)

    def writes(path: tuple[int, ...]) -> bool:
        return [k for k, _ in itertools.groupby(path) if k] == labels

    paths = [path for path in itertools.product(range(3), repeat=6) if writes(path)]
    best = max(paths, key=lambda path: sum(log_probs[t, k] for t, k in enumerate(path)))
    runs = [list(run) for k, run in itertools.groupby(range(6), key=lambda t: best[t]) if k]
    assert align(log_probs, labels) == [max(run, key=lambda t: log_probs[t, best[t]]) for run in runs]


def test_words_are_cut_in_the_gap() -> None:
    alphabet = Alphabet("ab ")
    decoder = CtcBeamSearchDecoder(alphabet.labels)
    image = normalise_line(_words((10, 90), (130, 250), width=260), LineFormat())
    frames = image.pixels.shape[1] // 4
    log_probs = np.full((frames, 4), np.log(0.02), np.float32)
    log_probs[:, 0] = np.log(0.94)
    for label, x in ((1, 50), (3, 108), (2, 190)):  # "a", the space, "b", by the columns of the scan
        frame = next(f for f in range(frames) if image.to_source_x(4 * f + 2) >= x)
        log_probs[frame] = np.log(0.01)
        log_probs[frame, label] = np.log(0.97)
    (cut,) = cut_line(image, "a b", log_probs, alphabet, decoder) or [0]
    assert 90 <= cut <= 130


def test_a_label_that_the_model_contradicts_is_marked() -> None:
    alphabet = Alphabet("ab ")
    decoder = CtcBeamSearchDecoder(alphabet.labels)
    image = normalise_line(_words((10, 400), width=410), LineFormat())
    log_probs = np.full((image.pixels.shape[1] // 4, 4), np.log(0.01), np.float32)
    log_probs[::2, 0] = np.log(0.97)
    log_probs[1::2, 1] = np.log(0.97)
    read = "a" * len(log_probs[1::2])
    assert cut_line(image, read, log_probs, alphabet, decoder) == []
    assert cut_line(image, "b" * len(read), log_probs, alphabet, decoder) is None
    assert cut_line(image, "ab" * 1000, log_probs, alphabet, decoder) is None  # more than fits


def _page() -> tuple[list[LabelledImage], dict[str, list[int] | None]]:
    images = [
        LabelledImage("x/page1_000.png", _png(_words((10, 90), (130, 250), width=260)), "one three"),
        LabelledImage("x/page1_001.png", _png(_words((10, 50), (90, 260), width=270, top=6)), "it sevens"),
        LabelledImage("x/page2_000.png", _png(_words((10, 60), width=70)), "alone"),
    ]
    return images, {images[0].name: [110], images[1].name: [70], images[2].name: []}


def test_new_lines_have_the_words_of_their_page_with_their_ink() -> None:
    images, cuts = _page()
    bank = ScanWordBank(images, cuts)
    rng = np.random.default_rng(0)
    wide = {"one": 110, "three": 150, "it": 70, "sevens": 200}
    seen = set()
    for _ in range(50):
        grey, text = bank.compose(images[0], rng) or pytest.fail("nothing composed")
        words = text.split(" ")
        seen.add(text)
        assert set(words) <= set(wide)
        assert grey.shape[1] == sum(wide[word] for word in words)
        assert abs(int(grey.max()) - PAPER) <= 1
        # Lines are set at the height of the first one's ink, so bars of 24 rows stay bars of 24 rows.
        assert int((grey.min(1) < 100).sum()) == 24
    assert len(seen) > 5
    assert bank.compose(images[2], rng) is None  # its page has no other line


def test_words_whose_places_do_not_fit_the_label_are_not_used() -> None:
    images, cuts = _page()
    for places in ([70, 90], []):
        bank = ScanWordBank(images, {**cuts, images[1].name: places})
        assert bank.compose(images[0], np.random.default_rng(0)) is None


def test_marked_lines_are_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    images, cuts = _page()
    source = ScanSource(images, Path("set"), {**cuts, images[2].name: None})
    rng = np.random.default_rng(0)
    assert all("alone" not in source(rng)[1] for _ in range(60))
    assert "page2_000.png skipped: its label does not fit" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[1]", '{"a": ["x"]}', '{"a": [true]}', '{"a": 3}', "\xff"])
def test_a_damaged_file_of_cuts_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "cuts.json"
    path.write_text(content, "latin-1")
    with pytest.raises(ValueError, match=r"cuts\.json: not"):
        read_cuts(path)
    path.write_text(json.dumps({"a": [1, 2], "b": None}))
    assert read_cuts(path) == {"a": [1, 2], "b": None}


def test_the_command_cuts_a_real_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "This line was written by hand and read by a machine."
    for name, label in (("right", text), ("wrong", "quite another text, and a long one at that")):
        (tmp_path / f"{name}.png").write_bytes((ROOT / "examples/sample_line.png").read_bytes())
        (tmp_path / f"{name}.txt").write_text(label)
    out = tmp_path / "made" / "cuts.json"
    bundle = str(ROOT / "server/longhand_server/models/en")
    arguments = ["word_cuts", bundle, "--folder", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 0
    cuts = read_cuts(out)
    assert cuts[f"{tmp_path.name}/wrong.png"] is None
    places = cuts[f"{tmp_path.name}/right.png"]
    assert places is not None
    assert len(places) == text.count(" ")
    grey = decode_trusted((ROOT / "examples/sample_line.png").read_bytes())
    ink = np.sum(grey < 0.7 * np.median(grey), axis=0)
    assert all(0 < a < b < grey.shape[1] for a, b in itertools.pairwise(places))
    assert max(ink[x] for x in places) <= 3  # between words there is next to no ink
    assert "1 lines cut into words; 1 whose label does not fit" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments[:2], "--out", str(out)])
    assert main() == 2
    assert "nothing to cut: name --data, --folder or --iam" in capsys.readouterr().err
    for unwritable in (tmp_path, out / "cuts.json"):  # a folder; below a file
        monkeypatch.setattr(sys, "argv", [*arguments[:-1], str(unwritable)])
        assert main() == 2
        said = capsys.readouterr().err
        assert said.startswith("word_cuts: [Errno")
        assert said.count("\n") == 1


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    for image in _page()[0]:
        (path / Path(image.name).name).write_bytes(image.data)
    (path / "labels.tsv").write_text(
        "".join(f"{Path(image.name).name}\t{image.text}\n" for image in _page()[0])
    )
    return path


def test_cuts_go_by_the_folder_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _folder(tmp_path / "x")
    path = tmp_path / "cuts.json"
    path.write_text(json.dumps(_page()[1]))
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "x", Path("x"), Path("../") / tmp_path.name / "x", Path("x/labels.tsv")):
        ((_, _, make),) = make_sources(SourceConfig(folders=(folder,), cuts=path))
        rng = np.random.default_rng(0)
        texts = {make(rng)[1] for _ in range(60)}
        assert len(texts) > 5  # three are written, the others composed
    assert "--word-cuts" not in capsys.readouterr().err


def test_cuts_of_other_lines_are_said_to_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(tmp_path / "y")
    path = tmp_path / "cuts.json"
    path.write_text(json.dumps(_page()[1]))
    make_sources(SourceConfig(folders=(folder,), cuts=path))
    said = capsys.readouterr().err
    assert f"{folder}: none of its 3 lines stands in the file of --word-cuts" in said
    assert "'y/page1_000.png'" in said


def test_cuts_cannot_be_those_of_two_folders_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = tuple(_folder(tmp_path / side / "x") for side in ("left", "right"))
    path = tmp_path / "cuts.json"
    path.write_text("{}")
    make_sources(SourceConfig(folders=folders, cuts=path))  # copies of one another: the same cuts do for both
    (folders[1] / "page2_000.png").write_bytes(_png(_words((10, 61), width=70)))
    changed = (folders[0], folders[1] / "labels.tsv")
    with pytest.raises(ValueError, match=r"two different images are called x/page2_000\.png"):
        make_sources(SourceConfig(folders=changed, cuts=path))
    arguments = ["word_cuts", str(ROOT / "server/longhand_server/models/en"), "--out", str(path)]
    arguments += [part for folder in changed for part in ("--folder", str(folder))]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 2
    assert "word_cuts: two different images are called x/page2_000.png" in capsys.readouterr().err
