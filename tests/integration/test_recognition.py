"""Recognize, BatchRecognize, ListModels and GetModel over a real port."""

from __future__ import annotations

import asyncio
import io
import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from helpers.bad_images import bad_images
from helpers.image_samples import FORMATS
from helpers.toy_model import ALPHABET, draw_image, draw_text
from longhand.v1 import recognition_pb2 as pb

if TYPE_CHECKING:
    from longhand.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_BAD = bad_images()


def random_text(seed: int, longest: int = 30) -> str:
    chooser = random.Random(seed)
    letters = "".join(chooser.choice(ALPHABET) for _ in range(chooser.randint(1, longest)))
    return " ".join(letters.split()) or "a"


def details_of(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, str]:
    """The ErrorInfo and the field named by BadRequest, if there is one."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    detail: any_pb2.Any
    for detail in status.details:
        for message in (info, request):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    return info, request.field_violations[0].field if request.field_violations else ""


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The rich status that came with an error."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    return status


@pytest.mark.parametrize("kind", FORMATS)
async def test_every_format_is_read(stub: RecognitionServiceAsyncStub, kind: str) -> None:
    image = draw_image("bad ace", kind)
    result = (await stub.Recognize(pb.RecognizeRequest(image=image))).result
    assert result.text == "bad ace"
    assert 0.5 < result.confidence <= 1.0
    assert (result.model, result.model_version) == ("toy", "1.0.0")
    height, width = draw_text("bad ace").shape
    assert (result.image_width_px, result.image_height_px) == (width, height)
    timings = result.timings
    assert timings.batch_size >= 1
    assert min(timings.decode_image_ms, timings.infer_ms, timings.beam_ms) > 0
    parts = timings.decode_image_ms + timings.queue_ms + timings.infer_ms + timings.beam_ms
    assert parts <= timings.total_ms < 5_000


async def test_a_blank_page_is_empty_text(stub: RecognitionServiceAsyncStub) -> None:
    buffer = io.BytesIO()
    Image.new("L", (600, 80), 245).save(buffer, "PNG")
    result = (await stub.Recognize(pb.RecognizeRequest(image=buffer.getvalue()))).result
    assert result.text == ""
    assert result.confidence == 1.0
    assert [reading.text for reading in result.alternatives] == [""]


async def test_many_callers_get_their_own_answers(stub: RecognitionServiceAsyncStub) -> None:
    texts = [random_text(seed) for seed in range(150)]
    answers = await asyncio.gather(
        *(stub.Recognize(pb.RecognizeRequest(image=draw_image(text))) for text in texts)
    )
    assert [answer.result.text for answer in answers] == texts


@pytest.mark.parametrize("name", _BAD)
async def test_bad_input_is_refused_with_details(stub: RecognitionServiceAsyncStub, name: str) -> None:
    data, message = _BAD[name]
    good = [stub.Recognize(pb.RecognizeRequest(image=draw_image(random_text(n)))) for n in range(4)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Recognize(pb.RecognizeRequest(image=data))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in (caught.value.details() or "")
    info, field = details_of(status_of(caught.value))
    assert (info.reason, info.domain, field) == ("INVALID_IMAGE", "longhand", "image")
    answers = await asyncio.gather(*good)
    assert [answer.result.text for answer in answers] == [random_text(n) for n in range(4)]


async def test_batch_items_succeed_and_fail_alone(stub: RecognitionServiceAsyncStub) -> None:
    texts = [random_text(seed) for seed in range(len(_BAD))]
    items = []
    for text, bad in zip(texts, _BAD.values(), strict=True):
        items.append(pb.BatchRecognizeItem(request_id=f"good {text}", image=draw_image(text)))
        items.append(pb.BatchRecognizeItem(request_id="bad", image=bad[0]))
    outcomes = (await stub.BatchRecognize(pb.BatchRecognizeRequest(items=items))).outcomes
    assert [outcome.request_id for outcome in outcomes] == [item.request_id for item in items]
    assert [outcome.result.text for outcome in outcomes[::2]] == texts
    for index, outcome in enumerate(outcomes[1::2]):
        assert outcome.WhichOneof("outcome") == "error"
        assert outcome.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        info, field = details_of(outcome.error)
        assert (info.reason, field) == ("INVALID_IMAGE", f"items[{2 * index + 1}].image")


@pytest.mark.parametrize("count", [0, 257])
async def test_batch_size_is_bounded(stub: RecognitionServiceAsyncStub, count: int) -> None:
    request = pb.BatchRecognizeRequest(items=[pb.BatchRecognizeItem()] * count)
    with pytest.raises(grpc.aio.AioRpcError, match=f"got {count} images, need 1 to 256") as caught:
        await stub.BatchRecognize(request)
    assert details_of(status_of(caught.value))[1] == "items"


async def test_words_characters_and_alternatives(stub: RecognitionServiceAsyncStub) -> None:
    text, scale = "bad ace", 3
    options = pb.RecognitionOptions(include_words=True, include_characters=True, alternatives=5)
    image = draw_image(text, scale=scale)
    result = (await stub.Recognize(pb.RecognizeRequest(image=image, options=options))).result
    assert [character.text for character in result.characters] == list(text)
    for place, character in enumerate(result.characters):
        # toy_model draws character number `place` here, 8 px of page before it.
        middle = scale * (8 + 40 + place * 28 + 8)
        assert character.x_start_px < middle < character.x_end_px
        assert 0 <= character.x_start_px < character.x_end_px <= result.image_width_px
        assert 0 <= character.confidence <= 1
    assert [word.text for word in result.words] == ["bad", "ace"]
    assert result.words[0].x_start_px == result.characters[0].x_start_px
    assert result.words[1].x_end_px == result.characters[-1].x_end_px
    assert result.words[0].x_end_px < result.words[1].x_start_px
    readings = result.alternatives
    assert len(readings) == 5
    assert readings[0].text == text
    totals = [reading.total_log_probability for reading in readings]
    assert totals == sorted(totals, reverse=True)
    assert len({reading.text for reading in readings}) == 5
    for reading in readings:
        parts = reading.acoustic_log_probability + reading.language_model_log_probability
        assert parts == pytest.approx(reading.total_log_probability, abs=1e-4)


async def test_nothing_is_given_that_was_not_asked_for(stub: RecognitionServiceAsyncStub) -> None:
    result = (await stub.Recognize(pb.RecognizeRequest(image=draw_image("abc")))).result
    assert not result.words
    assert not result.characters
    assert len(result.alternatives) == 1


async def test_options_reach_the_decoder(stub: RecognitionServiceAsyncStub) -> None:
    image = draw_image("abcab")
    greedy = pb.RecognitionOptions(decoder=pb.DecoderOptions(kind=pb.DECODER_KIND_GREEDY))
    answer = await stub.Recognize(pb.RecognizeRequest(image=image, options=greedy))
    assert answer.result.text == "abcab"
    some = pb.RecognitionOptions(allowed_characters="ab")
    answer = await stub.Recognize(pb.RecognizeRequest(image=image, options=some))
    assert set(answer.result.text) <= {"a", "b"}
    hot = pb.RecognitionOptions(hotwords=[pb.Hotword(text="abcab", boost=3.5), pb.Hotword(text="dad")])
    answer = await stub.Recognize(pb.RecognizeRequest(image=image, options=hot))
    assert answer.result.text == "abcab"
    assert answer.result.alternatives[0].language_model_log_probability == pytest.approx(3.5)


def _decoder(**settings: float) -> pb.RecognitionOptions:
    return pb.RecognitionOptions(decoder=pb.DecoderOptions(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        (_decoder(beam_width=0), "options.decoder.beam_width", "got 0, need 1 to 1000"),
        (_decoder(beam_width=1_000_000), "options.decoder.beam_width", "got 1000000"),
        (_decoder(word_weight=float("nan")), "options.decoder.word_weight", "got nan"),
        (_decoder(temperature=0.0), "options.decoder.temperature", "need 0.1 to 10"),
        (_decoder(unknown_word_penalty=-1), "options.decoder.unknown_word_penalty", "0 to 100"),
        (_decoder(kind=9), "options.decoder.kind", "there is no value 9"),
        (pb.RecognitionOptions(alternatives=101), "options.alternatives", "need 1 to 100"),
        (pb.RecognitionOptions(priority=77), "options.priority", "no value 77"),  # type: ignore[arg-type]
        (pb.RecognitionOptions(allowed_characters="aZ"), "options.allowed_characters", "cannot write Z"),
        (pb.RecognitionOptions(hotwords=[pb.Hotword(text="Z")]), "options.hotwords[0].text", "write Z"),
        (pb.RecognitionOptions(hotwords=[pb.Hotword()]), "options.hotwords[0].text", "0 characters"),
        (
            pb.RecognitionOptions(hotwords=[pb.Hotword(text="a"), pb.Hotword(text="b", boost=99)]),
            "options.hotwords[1].boost",
            "got 99.0, need 0 to 20",
        ),
        (pb.RecognitionOptions(hotwords=[pb.Hotword(text="a")] * 1001), "options.hotwords", "1001 words"),
    ],
)
async def test_wrong_options_name_field_value_and_range(
    stub: RecognitionServiceAsyncStub, options: pb.RecognitionOptions, field: str, message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Recognize(pb.RecognizeRequest(image=draw_image("a"), options=options))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in (caught.value.details() or "")
    info, named = details_of(status_of(caught.value))
    assert (info.reason, named) == ("INVALID_REQUEST", field)


async def test_models_are_listed_and_described(stub: RecognitionServiceAsyncStub) -> None:
    (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
    assert (model.name, model.version, model.is_default) == ("toy", "1.0.0", True)
    assert model.state == pb.MODEL_STATE_READY
    assert model.alphabet == ALPHABET
    assert model.line_height_px == 64
    assert model.device == "cpu"
    assert model.default_options.beam_width == 20
    assert not model.has_word_model
    assert model.loaded_at.seconds > 1_700_000_000
    same = (await stub.GetModel(pb.GetModelRequest())).model
    assert same == model
    assert (await stub.GetModel(pb.GetModelRequest(name="toy", version="1.0.0"))).model == model


@pytest.mark.parametrize(
    ("name", "version", "field"), [("nl", "", "name"), ("toy", "9", "version"), ("", "9", "version")]
)
async def test_unknown_models_are_not_found_and_the_served_ones_named(
    stub: RecognitionServiceAsyncStub, name: str, version: str, field: str
) -> None:
    options = pb.RecognitionOptions(model=name, model_version=version)
    prefix = "options.model" if field == "name" else "options.model_"
    calls: list[tuple[Any, str]] = [
        (stub.GetModel(pb.GetModelRequest(name=name, version=version)), field),
        (
            stub.Recognize(pb.RecognizeRequest(image=draw_image("a"), options=options)),
            prefix if field == "name" else prefix + field,
        ),
    ]
    for call, named in calls:
        with pytest.raises(grpc.aio.AioRpcError, match=r"there is: toy 1\.0\.0") as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        info, got = details_of(status_of(caught.value))
        assert (info.reason, got) == ("MODEL_NOT_FOUND", named)


async def test_what_else_is_in_the_batch_changes_nothing(stub: RecognitionServiceAsyncStub) -> None:
    options = pb.RecognitionOptions(alternatives=5, include_characters=True)
    image = draw_image("cab dec", noise=5)

    def bare(result: pb.RecognitionResult) -> pb.RecognitionResult:
        result.ClearField("timings")
        return result

    alone = bare((await stub.Recognize(pb.RecognizeRequest(image=image, options=options))).result)
    for seed in range(5):
        others = [draw_image(random_text(seed * 31 + n), noise=n + 1) for n in range(20)]
        others.insert(seed * 4, image)
        items = [pb.BatchRecognizeItem(image=other) for other in others]
        request = pb.BatchRecognizeRequest(items=items, options=options)
        outcomes = (await stub.BatchRecognize(request)).outcomes
        assert bare(outcomes[seed * 4].result) == alone
