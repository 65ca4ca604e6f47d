"""The shipped model behind a real server."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest

from helpers.server_process import ServerProcess
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_client.bench.lines import draw_lines

_ROOT = Path(__file__).parents[2]
_SAMPLE = _ROOT / "examples" / "sample_line.png"


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[recognition_pb2_grpc.RecognitionServiceStub]:
    with (
        ServerProcess("en", tmp_path_factory.mktemp("en")) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield recognition_pb2_grpc.RecognitionServiceStub(channel)


def crops() -> list[bytes]:
    """The sample line, whole and cut at several widths."""
    grey = cv2.imread(str(_SAMPLE), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    files = []
    for share in (0.2, 0.35, 0.5, 0.65, 0.8, 1.0):
        done, data = cv2.imencode(".png", grey[:, : int(share * grey.shape[1])])
        assert done
        files.append(data.tobytes())
    return files


def test_beam_search_and_greedy_read_much_the_same(stub: recognition_pb2_grpc.RecognitionServiceStub) -> None:
    image = _SAMPLE.read_bytes()
    best = stub.Recognize(pb.RecognizeRequest(image=image)).result
    options = pb.RecognitionOptions(decoder=pb.DecoderOptions(kind=pb.DECODER_KIND_GREEDY))
    greedy = stub.Recognize(pb.RecognizeRequest(image=image, options=options)).result
    assert len(best.text) > 10
    assert difflib.SequenceMatcher(None, best.text, greedy.text).ratio() > 0.6
    assert 0 < best.confidence <= 1


def test_what_else_is_in_the_batch_changes_nothing(stub: recognition_pb2_grpc.RecognitionServiceStub) -> None:
    options = pb.RecognitionOptions(alternatives=3, include_words=True, include_characters=True)
    files = crops()
    alone = [stub.Recognize(pb.RecognizeRequest(image=file, options=options)).result for file in files]
    chooser = np.random.default_rng(3)
    for _ in range(3):
        order = [int(index) for index in chooser.permutation(len(files))]
        items = [pb.BatchRecognizeItem(image=files[index]) for index in order]
        outcomes = stub.BatchRecognize(pb.BatchRecognizeRequest(items=items, options=options)).outcomes
        for index, outcome in zip(order, outcomes, strict=True):
            got, wanted = outcome.result, alone[index]
            assert got.text == wanted.text
            for left, right in zip(got.alternatives, wanted.alternatives, strict=True):
                assert left.text == right.text
                assert left.total_log_probability == pytest.approx(right.total_log_probability, abs=1e-2)


def test_words_and_characters_lie_in_the_image_from_left_to_right(
    stub: recognition_pb2_grpc.RecognitionServiceStub,
) -> None:
    options = pb.RecognitionOptions(include_words=True, include_characters=True)
    request = pb.RecognizeRequest(image=_SAMPLE.read_bytes(), options=options)
    result = stub.Recognize(request).result
    assert "".join(character.text for character in result.characters) == result.text
    assert [word.text for word in result.words] == result.text.split()
    edges = [0.0]
    for character in result.characters:
        edges += [character.x_start_px, character.x_end_px]
    edges.append(float(result.image_width_px))
    assert edges == sorted(edges)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_turned_line_reads_as_if_it_were_not(
    turned: int, stub: recognition_pb2_grpc.RecognitionServiceStub
) -> None:
    options = pb.RecognitionOptions(include_words=True)
    upright = stub.Recognize(pb.RecognizeRequest(image=_SAMPLE.read_bytes(), options=options)).result
    grey = cv2.imread(str(_SAMPLE), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    done, data = cv2.imencode(".png", np.rot90(grey, turned // 90))  # to the left
    assert done
    result = stub.Recognize(pb.RecognizeRequest(image=data.tobytes(), options=options)).result
    assert (result.text, result.rotation_degrees) == (upright.text, turned)
    assert (result.image_width_px, result.image_height_px) == grey.shape[::-1]
    places, wanted = ([word.x_start_px for word in one.words] for one in (result, upright))
    assert places == pytest.approx(wanted, abs=12)


def test_the_model_describes_itself(stub: recognition_pb2_grpc.RecognitionServiceStub) -> None:
    model = stub.GetModel(pb.GetModelRequest()).model
    assert model.name == "en"
    assert model.has_word_model
    assert model.has_character_model
    assert model.default_options.word_weight > 0
    assert set("abcXYZ019.,'\"-é ") <= set(model.alphabet)


def test_the_benchmark_draws_lines_that_are_read_once(
    stub: recognition_pb2_grpc.RecognitionServiceStub,
) -> None:
    items = [pb.BatchRecognizeItem(image=line) for line in draw_lines(6, median_width=500, spread=0.4)]
    outcomes = stub.BatchRecognize(pb.BatchRecognizeRequest(items=items)).outcomes
    # Below 0.15 a line is read again, which takes up to three times as long.
    assert min(outcome.result.confidence for outcome in outcomes) > 0.5
