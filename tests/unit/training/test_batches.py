"""Lines on their way into batches: each keeps its label, and no two streams draw the same."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.pen_packs import pen_word, write_pack
from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_training import dataset as datasets
from longhand_training import sources
from longhand_training.dataset import LineDataset, Sample, collate, fits
from longhand_training.ink import draw_plain
from longhand_training.line_sets import make_sources, validation_sets
from longhand_training.packs import SCAN_PACKS, LabelledImage
from longhand_training.source_config import SourceConfig
from longhand_training.sources import FontSource, Maker, PenSource, ScanSource
from longhand_training.strokes import PenText, load_pen_lines
from longhand_training.text import DEFAULT_CHARACTERS

ALPHABET = Alphabet(DEFAULT_CHARACTERS)
LINE = LineFormat()


def drawn(text: str) -> np.ndarray:
    strokes = pen_word(text, 0.0)
    lengths = np.array([len(stroke) for stroke in strokes])
    return draw_plain(PenText(text, np.concatenate(strokes), np.cumsum(lengths) - lengths))


def write_scans(path: Path, **images: np.ndarray) -> None:
    """A tar of one line for each split, which says the split's name."""
    with tarfile.open(path, "w") as pack:
        for split, grey in images.items():
            done, data = cv2.imencode(".png", grey)
            assert done
            for name, content in (
                (f"{split}.tsv", f"{split}/0.png\t{split}\n".encode()),
                (f"{split}/0.png", data.tobytes()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                pack.addfile(info, io.BytesIO(content))


def maker(text: str) -> Maker:
    grey = drawn(text)
    return lambda _: (grey, text)


def test_each_image_of_a_batch_has_its_own_label() -> None:
    texts = ("ab", "c", "def")
    batch = collate([Sample(np.full((64, 40), k / 5, np.float32), t) for k, t in enumerate(texts)], ALPHABET)
    assert batch.images[:, 0, 0, 0].tolist() == [0, 51, 102]
    assert ALPHABET.decode(batch.targets.tolist()) == "abcdef"
    assert batch.target_lengths.tolist() == [2, 1, 3]


def test_every_worker_process_and_piece_of_a_run_draws_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Worker:
        def __init__(self, number: int) -> None:
            self.id = number

    drawn_numbers = Counter[int]()

    def numbered(rng: np.random.Generator) -> tuple[np.ndarray, str]:
        drawn_numbers[int(rng.integers(1 << 40))] += 1
        return drawn("abc"), "abc"

    for seed, piece, worker, replica in (
        (1, 0, 0, 0),
        (2, 0, 0, 0),
        (1, 1, 0, 0),
        (1, 0, 1, 0),
        (1, 0, 0, 1),
    ):
        monkeypatch.setattr(datasets, "get_worker_info", lambda number=worker: Worker(number))
        sources = [("own", 1.0, numbered)]
        next(iter(LineDataset(sources, ALPHABET, LINE, 100, seed=seed, round=piece, replica=replica)))
    assert len(drawn_numbers) == 5
    assert set(drawn_numbers.values()) == {1}


def test_sources_are_drawn_by_their_shares() -> None:
    sources = [("one", 3.0, maker("one")), ("other", 1.0, maker("other")), ("none", 0.0, maker("none"))]
    dataset, rng = LineDataset(sources, ALPHABET, LINE, 3000), np.random.default_rng(0)
    counts = Counter(dataset.sample(rng).text for _ in range(200))
    assert set(counts) == {"one", "other"}
    assert counts["one"] == pytest.approx(150, abs=25)


def test_a_line_that_is_shown_again_is_as_wide_as_its_label_needs() -> None:
    sample = LineDataset([("own", 1.0, maker("abc"))], ALPHABET, LINE, 3000).sample(np.random.default_rng(0))
    text = "a b" * 99
    text = text[: sample.pixels.shape[1] // 4]  # as long as it can be
    sources = [("own", 1.0, lambda _: (drawn("abc"), text))]
    drawn_lines = LineDataset(sources, ALPHABET, LINE, 3000, repeats=2).samples(np.random.default_rng(1))
    widths = [next(drawn_lines).pixels.shape[1] for _ in range(400)]
    assert all(fits(width, text) for width in widths)
    assert len(set(widths)) > 3


def test_no_line_is_shown_twice_as_it_is() -> None:
    for repeats in (1, 3):
        dataset = LineDataset([("own", 1.0, maker("abc"))], ALPHABET, LINE, 3000, repeats=repeats)
        lines = dataset.samples(np.random.default_rng(0))
        # Made the same each time, three lines in five are changed.
        assert len({next(lines).pixels.tobytes() for _ in range(100)}) > 50


def test_a_scan_is_another_one_each_time() -> None:
    done, data = cv2.imencode(".png", drawn("abc"))
    assert done
    source = ScanSource([LabelledImage("abc.png", data.tobytes(), "abc")], Path("set"))
    rng = np.random.default_rng(0)
    assert len({source(rng)[0].tobytes() for _ in range(20)}) == 20


def test_pen_lines_are_of_other_hands_and_sizes_and_some_lie_beside_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[PenText, float]] = []
    beside: list[bool] = []

    def draw_ink(pen: PenText, rng: np.random.Generator, body: float) -> np.ndarray:
        made.append((pen, body))
        return np.zeros((64, 64), np.float32)

    def on_paper(mask: np.ndarray, rng: np.random.Generator, neighbour: np.ndarray | None) -> np.ndarray:
        beside.append(neighbour is not None)
        return np.zeros((64, 64), np.uint8)

    monkeypatch.setattr(sources, "draw_ink", draw_ink)
    monkeypatch.setattr(sources, "on_paper", on_paper)
    write_pack(tmp_path / "strokes.npz", [("f-1", "one two"), ("f-2", "x")])
    lines, _ = load_pen_lines(tmp_path / "strokes.npz")
    for other_hands in (False, True):
        source, rng = PenSource(lines, False, other_hands), np.random.default_rng(0)
        made.clear()
        for _ in range(200):
            source(rng)
        sizes = [body for _, body in made]
        assert min(sizes) < 52 < 80 < max(sizes)
        others = sum(not np.array_equal(pen.points, lines[0].line.points) for pen, _ in made)
        assert (others > 100) == other_hands
    assert sum(beside) / len(beside) == pytest.approx(0.2, abs=0.06)


def test_a_line_set_in_a_font_is_labelled_with_what_the_font_could_draw() -> None:
    class Fonts:
        def draw(self, text: str, rng: np.random.Generator) -> tuple[str, np.ndarray]:
            return text.replace("\u0142", ""), np.zeros((64, 100), np.float32)

    class Phrases:
        def __init__(self) -> None:
            self.left = ["\u0142", "z\u0142oty"]

        def phrase(self, rng: np.random.Generator) -> str:
            return self.left.pop(0)

    source = FontSource(cast(Any, Fonts()), cast(Any, Phrases()))
    assert source(np.random.default_rng(0))[1] == "zoty"


def test_pen_lines_are_taken_as_written_only_where_that_is_wanted(tmp_path: Path) -> None:
    write_pack(tmp_path / "strokes.npz", [("f-1", "one two"), ("f-2", "x"), ("f-3", "three four")])
    lines, _ = load_pen_lines(tmp_path / "strokes.npz")
    texts = []
    for recompose in (False, True):
        source, rng = PenSource(lines, recompose, other_hands=False), np.random.default_rng(0)
        texts.append({source(rng)[1] for _ in range(25)})
    assert texts[0] == {"one two", "three four"}
    assert len(texts[1]) > 5


def test_lines_of_the_packs_are_validated_on_by_their_own_split(tmp_path: Path) -> None:
    write_pack(
        tmp_path / "iamondb_strokes.npz", [("f-1", "trained"), ("f-2", "one"), ("f-3", "too"), ("f-4", "two")]
    )
    for name in SCAN_PACKS:
        write_scans(tmp_path / name, train=drawn("abc"), validation=drawn("abcdef"))
    sets = validation_sets(tmp_path, LINE)
    names = {name: [(sample.name, sample.text) for sample in samples] for name, samples in sets.items()}
    pen, scans = [("f-2", "one"), ("f-4", "two")], [("validation/0.png", "validation")]
    assert names == {"pen": pen, "ink": pen, "copiste": scans, "hooker": scans}
    # Drawn plainly a line has no grey paper and no grain; as ink it has, always the same.
    shades = [len(np.unique((sets[name][0].pixels * 255).round())) for name in ("pen", "ink")]
    assert shades[0] != shades[1]
    again = validation_sets(tmp_path, LINE)
    np.testing.assert_array_equal(again["ink"][0].pixels, sets["ink"][0].pixels)
    assert [len(samples) for samples in validation_sets(tmp_path, LINE, 1).values()] == [1, 1, 1, 1]
    makers = {name: make for name, _, make in make_sources(SourceConfig(data=tmp_path, recompose=False))}
    rng = np.random.default_rng(0)
    assert {makers["pen"](rng)[1] for _ in range(20)} == {"trained", "too"}
    assert {makers[name](rng)[1] for name in ("copiste", "historical")} == {"train"}
