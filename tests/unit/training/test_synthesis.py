from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from helpers.pen_packs import pen_word, write_pack
from longhand_server.alphabet import Alphabet
from longhand_server.config import LineFormat
from longhand_server.image import normalise_line
from longhand_training.augment import augment_pixels, augment_scan
from longhand_training.dataset import LineDataset, by_width, fits
from longhand_training.ink import draw_ink, draw_plain, on_paper
from longhand_training.sources import PenSource
from longhand_training.strokes import PenLine, PenText, WriterBank, load_pen_lines
from longhand_training.text import DEFAULT_CHARACTERS, PhraseSource, read_sentences


@pytest.fixture
def pen_lines(tmp_path: Path) -> list[PenLine]:
    path = tmp_path / "strokes.npz"
    write_pack(path, [("f-1-01", "one two three"), ("f-1-02", "validation"), ("f-1-03", "four five")])
    training, validation = load_pen_lines(path)
    assert [line.line.text for line in validation] == ["validation"]
    return training


def test_words_are_cut_at_the_widest_gaps(pen_lines: list[PenLine]) -> None:
    assert [word.text for word in pen_lines[0].words] == ["one", "two", "three"]
    assert [len(word.starts) for word in pen_lines[0].words] == [3, 3, 5]
    assert [word.box()[0] for word in pen_lines[0].words] == [0, 0, 0]
    assert pen_lines[0].form == "f-1"


def test_composed_lines_hold_the_strokes_of_their_words_in_order(pen_lines: list[PenLine]) -> None:
    bank = WriterBank(pen_lines)
    rng = np.random.default_rng(0)
    known = {"one", "two", "three", "four", "five"}
    texts = set()
    for _ in range(60):
        pen = bank.compose(rng, longest=30)
        assert set(pen.text.split()) <= known
        assert len(pen.text) <= 30
        assert len(pen.starts) == len(pen.text.replace(" ", ""))
        lefts = np.minimum.reduceat(pen.points[:, 0], pen.starts)
        assert (np.diff(lefts) >= 0).all()
        texts.add(pen.text)
    assert len(texts) > 10


def test_a_rising_line_is_levelled(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    write_pack(path, [("f-1-01", "one two three four five"), ("f-1-02", "x")], slope=0.1)
    (line,), _ = load_pen_lines(path)
    _, top, _, bottom = line.line.box()
    assert bottom - top < 130
    assert np.median(line.line.points[:, 1]) == pytest.approx(0.0, abs=0.01)  # so lines can be joined


def test_a_pack_that_lacks_an_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    np.savez(path, text=np.array(["a"]))
    with pytest.raises(ValueError, match="lacks the arrays point_deltas"):
        load_pen_lines(path)


def test_a_pack_whose_arrays_do_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    write_pack(path, [("f-1-01", "one"), ("f-1-02", "two")])
    with np.load(path) as pack:
        arrays = dict(pack)
    np.savez(path, **{**arrays, "pen_up": arrays["pen_up"][:-3]})
    with pytest.raises(ValueError, match="pen_up has 21 values for 24 points"):
        load_pen_lines(path)
    # An empty line at the end is only left out.
    starts = np.append(arrays["line_start"], arrays["line_start"][-1])
    more = {"line_start": starts, "text": np.append(arrays["text"], "x")}
    more["line_id"] = np.append(arrays["line_id"], "f-1-03")
    more["is_validation"] = np.append(arrays["is_validation"], False)
    np.savez(path, **{**arrays, **more})
    training, validation = load_pen_lines(path)
    assert [line.line.text for line in training + validation] == ["one", "two"]


def test_a_pack_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "strokes.npz"
    with pytest.raises(ValueError, match=r"strokes\.npz: not a readable pack of strokes: .*No such file"):
        load_pen_lines(path)
    write_pack(path, [("f-1-01", "one"), ("f-1-02", "two")])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"strokes\.npz: not a readable pack of strokes: .*zip"):
        load_pen_lines(path)


def test_ink_and_paper_stay_readable(pen_lines: list[PenLine]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        mask = draw_ink(pen_lines[0].line, rng, 64.0)
        assert mask.dtype == np.float32
        assert 0.0 <= mask.min() <= mask.max() <= 1.0
        grey = on_paper(mask, rng, neighbour=mask)
        assert grey.dtype == np.uint8
        assert not normalise_line(grey, LineFormat()).is_blank


def test_the_same_seed_draws_the_same_line(pen_lines: list[PenLine]) -> None:
    source = PenSource(pen_lines)
    first, second = (source(np.random.default_rng(9)) for _ in range(2))
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[0], second[0])


def test_a_plain_drawing_is_black_on_white() -> None:
    strokes = pen_word("ab", 0.0)
    pen = PenText("ab", np.concatenate(strokes), np.array([0, len(strokes[0])]))
    grey = draw_plain(pen, height=100)
    assert grey.shape[0] == 100
    assert grey.min() < 40
    assert np.median(grey) == 255


def test_augmentation_keeps_lines_readable_and_in_range(pen_lines: list[PenLine]) -> None:
    rng = np.random.default_rng(2)
    grey = draw_plain(pen_lines[0].line)
    shapes = set()
    for _ in range(40):
        scan = augment_scan(grey, rng)
        shapes.add(scan.shape)
        image = normalise_line(scan, LineFormat())
        assert not image.is_blank
        pixels = augment_pixels(image.pixels, rng)
        assert pixels.shape == image.pixels.shape
        assert np.isfinite(pixels).all()
        assert pixels.min() >= 0.0
        assert pixels.max() <= 1.0 + 1e-5  # rounding of the resampling
    assert len(shapes) > 35


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (2, 40), (3, 3), (3, 300), (40, 1)])
def test_augmentation_survives_the_smallest_images(height: int, width: int) -> None:
    grey = np.full((height, width), 255, np.uint8)
    grey[:, ::2] = 0
    for seed in range(200):
        assert min(augment_scan(grey, np.random.default_rng(seed)).shape) >= 3


@pytest.mark.parametrize("shape", [(60, 60_000), (12_000, 30), (40_000, 30)])
def test_augmentation_survives_images_that_are_longer_than_opencv_warps(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 255, np.uint8)
    for seed in range(8):
        assert max(augment_scan(grey, np.random.default_rng(seed)).shape) < 2**15


def test_batches_stay_within_their_bound_and_carry_their_labels(pen_lines: list[PenLine]) -> None:
    alphabet = Alphabet(DEFAULT_CHARACTERS)
    sources = [("pen", 1.0, PenSource(pen_lines))]
    dataset = LineDataset(sources, alphabet, LineFormat(), pixels_per_batch=3000, seed=4)
    batches = iter(dataset)
    for _ in range(6):
        batch = next(batches)
        count, _, height, width = batch.images.shape
        assert height == 64
        assert count == 1 or count * width <= 3000
        assert int(batch.target_lengths.sum()) == len(batch.targets)
        for i in range(count):
            assert not batch.images[i, :, :, int(batch.widths[i]) :].any()


def test_repeated_lines_are_warped_and_come_as_often_as_asked_for(pen_lines: list[PenLine]) -> None:
    made: list[str] = []

    def numbered(rng: np.random.Generator) -> tuple[np.ndarray, str]:
        made.append(f"{len(made):05d}")
        return draw_plain(pen_lines[0].line), made[-1]

    dataset = LineDataset(
        [("pen", 1.0, numbered)], Alphabet(DEFAULT_CHARACTERS), LineFormat(), 3000, repeats=3
    )
    drawn = dataset.samples(np.random.default_rng(3))
    samples = [next(drawn) for _ in range(900)]
    counts = Counter(sample.text for sample in samples)
    assert max(counts.values()) == 3
    assert 900 / 3 <= len(made) < 900 / 3 + 300  # some wait to be shown again
    texts = [sample.text for sample in samples]
    waits = [texts.index(text, i + 1) - i for i, text in enumerate(texts) if text in texts[i + 1 :]]
    assert np.median(waits) > 100  # not in the same batch
    shown = [sample.pixels.shape[1] for sample in samples if counts[sample.text] == 3]
    assert len(set(shown)) > 20


@pytest.mark.parametrize(
    ("text", "width", "reason"),
    [
        ("1 \N{INFINITY} 2", 400, "characters that the network does not write: \N{INFINITY}$"),
        ("a text that is far too long for its image", 40, "an image is too narrow for its text$"),
        ("a", 16, "an image is blank$"),
    ],
)
def test_sources_without_a_usable_line_are_an_error_and_no_endless_search(
    text: str, width: int, reason: str
) -> None:
    grey = np.full((64, width), 255, np.uint8)
    grey[20:44, 8:-8:6] = 0
    dataset = LineDataset(
        [("own", 1.0, lambda _: (grey, text))], Alphabet(DEFAULT_CHARACTERS), LineFormat(), 3000
    )
    with pytest.raises(ValueError, match=f"no usable line among 1000 .*{reason}"):
        dataset.sample(np.random.default_rng(0))


def test_batches_have_few_shapes(pen_lines: list[PenLine]) -> None:
    sources = [("pen", 1.0, PenSource(pen_lines))]
    batches = iter(LineDataset(sources, Alphabet(DEFAULT_CHARACTERS), LineFormat(), pixels_per_batch=6000))
    shapes = {tuple(next(batches).images.shape) for _ in range(40)}
    assert all(width % 64 == 0 and count == max(6000 // width, 1) for count, _, _, width in shapes)


def test_ctc_needs_a_frame_more_for_a_repeat() -> None:
    assert fits(12, "abc")
    assert not fits(12, "abb")
    assert fits(16, "abb")


def test_by_width_loses_no_line(pen_lines: list[PenLine]) -> None:
    dataset = LineDataset(
        [("pen", 1.0, PenSource(pen_lines))], Alphabet(DEFAULT_CHARACTERS), LineFormat(), 3000
    )
    rng = np.random.default_rng(0)
    samples = [dataset.sample(rng) for _ in range(9)]
    grouped = [sample for batch in by_width(samples, 2500) for sample in batch]
    assert sorted(map(id, grouped)) == sorted(map(id, samples))


def test_phrases_come_from_the_sentences_and_have_line_length() -> None:
    source = PhraseSource(["the quick brown fox jumps over the lazy dog near the river bank"])
    rng = np.random.default_rng(0)
    phrases = [source.phrase(rng, 10, 40) for _ in range(300)]
    assert max(map(len, phrases)) < 80
    assert sum("fox" in phrase for phrase in phrases) > 20
    assert any(any(c.isdigit() for c in phrase) for phrase in phrases)
    running = [
        phrase
        for phrase in phrases
        if phrase.upper().split()[-1] in ["THE", "QUICK", "BROWN", "FOX", "JUMPS", "NEAR", "RIVER", "BANK"]
    ]
    assert 0.1 < sum(phrase.isupper() for phrase in running) / len(running) < 0.3
    for entry in (
        r"\d{1,2} (January|June|November) (19|20)\d\d",
        r"\+\d\d \d\d \d{4} \d{4}",
        r"£[\d,]+\.\d\d",
        r"[A-Z]{2}\d{1,2} \d[A-Z]{2}",
        r"(?=.*\d)(?=.*[A-Z])[A-Z\d]{5,10}",
        r"[a-z]+[._-]?[a-z]+@[a-z]+\.(com|org|net|co\.uk|de|fr)",
    ):
        assert any(re.fullmatch(entry, source.phrase(rng)) for _ in range(3000)), entry
    # A corpus without a plain word.
    assert any("@" in PhraseSource(["12, 13!"]).phrase(rng) for _ in range(500))
    with pytest.raises(ValueError, match="no sentences"):
        PhraseSource([])


def test_a_word_longer_than_a_line_is_cut_and_not_left_out() -> None:
    source, rng = PhraseSource(["w" * 100]), np.random.default_rng(0)
    made = [source.phrase(rng, 10, 40) for _ in range(200)]
    phrases = [phrase for phrase in made if "www" in phrase.lower() and "@" not in phrase]
    assert len(phrases) > 100
    assert all(made)
    assert max(map(len, phrases)) < 60  # and a number, perhaps


def test_sentences_are_written_as_labels_are(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("  \u201cIt\u2019s   here\u201d\u2026\n\n\tand there \n", "utf-8")
    assert list(read_sentences(path)) == ['"It\'s here"...', "and there"]


def test_a_text_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.xz"
    path.write_bytes(b"not xz")
    with pytest.raises(ValueError, match=r"x\.txt\.xz: not a readable text"):
        list(read_sentences(path))
