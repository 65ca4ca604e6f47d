from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import longhand_client
from helpers.web_process import free_port
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_client import AsyncRecognizerClient, RecognitionOptions, RecognizerClient
from longhand_client.errors import (
    AuthenticationError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    LonghandError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    ServerUnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.fake_service import FakeServer


@pytest.fixture
def client(fake: FakeServer) -> Iterator[RecognizerClient]:
    with RecognizerClient(fake.address, retries=0) as client:
        yield client


def test_everything_of_the_answer_arrives(client: RecognizerClient) -> None:
    read = client.recognize(b"text:caf\xc3\xa9")
    assert read.text == "café"
    assert read.confidence == 0.75
    (best,) = read.alternatives
    assert (best.text, best.total_log_probability) == ("café", -1.5)
    assert (best.acoustic_log_probability, best.language_model_log_probability) == (-1.0, -0.5)
    assert [(one.text, one.x_start, one.x_end) for one in read.words] == [("café", 3.0, 40.0)]
    assert [(one.text, one.confidence) for one in read.characters] == [("c", 0.5)]
    assert (read.timings.infer_ms, read.timings.batch_size) == (12.0, 4)
    assert (read.model, read.model_version, read.image_width, read.image_height) == ("en", "1.0.0", 640, 48)


def test_to_dict_is_json(client: RecognizerClient) -> None:
    record = client.recognize(b"text:ab").to_dict()
    assert json.loads(json.dumps(record)) == record  # lists, and no tuples
    assert record["text"] == "ab"
    assert record["words"][0] == {"text": "ab", "confidence": 0.5, "x_start": 3.0, "x_end": 40.0}


def test_a_channel_of_one_s_own_is_closed_with_the_client(fake: FakeServer) -> None:
    channel = grpc.insecure_channel(fake.address)
    with RecognizerClient(channel=channel) as client:
        assert client.recognize(b"text:ab").text == "ab"
    with pytest.raises(ValueError, match="closed channel"):
        rpc.RecognitionServiceStub(channel).ListModels(pb.ListModelsRequest())


def test_an_asyncio_channel_of_one_s_own_is_closed_with_the_client(fake: FakeServer) -> None:
    async def main() -> None:
        channel = grpc.aio.insecure_channel(fake.address)
        async with AsyncRecognizerClient(channel=channel) as client:
            assert (await client.recognize(b"text:ab")).text == "ab"
            outcomes = [one.result().text async for one in client.recognize_stream([b"text:cd"])]
            assert outcomes == ["cd"]
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            await rpc.RecognitionServiceStub(channel).ListModels(pb.ListModelsRequest())

    asyncio.run(main())


def test_results_are_frozen(client: RecognizerClient) -> None:
    with pytest.raises(AttributeError):
        client.recognize(b"text:ab").text = "other"  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["path", "string", "bytearray", "memoryview", "file"])
def test_sources(client: RecognizerClient, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "line.png"
    path.write_bytes(b"text:ok")
    sources: dict[str, Any] = {
        "path": path,
        "string": str(path),
        "bytearray": bytearray(b"text:ok"),
        "memoryview": memoryview(b"text:ok"),
        "file": io.BytesIO(b"text:ok"),
    }
    assert client.recognize(sources[kind]).text == "ok"


def test_missing_file_is_named(client: RecognizerClient, tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match=r"nothing\.png: No such file"):
        client.recognize(tmp_path / "nothing.png")


def test_text_file_object_and_wrong_type(client: RecognizerClient) -> None:
    with pytest.raises(InvalidImageError, match="binary mode") as caught:
        client.recognize(io.StringIO("text"))  # type: ignore[arg-type]
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(TypeError, match="got int, need bytes"):
        client.recognize(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "kind", "code", "reason"),
    [
        (b"bad", InvalidImageError, "INVALID_ARGUMENT", "INVALID_IMAGE"),
        (b"full", OverloadedError, "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (b"token", AuthenticationError, "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (b"model", ModelNotFoundError, "NOT_FOUND", "MODEL_NOT_FOUND"),
        (b"?", ServerError, "INTERNAL", "RECOGNITION_FAILED"),
    ],
)
def test_errors_keep_the_servers_details(
    client: RecognizerClient, image: bytes, kind: type[LonghandError], code: str, reason: str
) -> None:
    with pytest.raises(kind) as caught:
        client.recognize(image)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert caught.value.retry_after_s == (0.25 if image == b"full" else None)


def test_oversized_image_is_no_overload(client: RecognizerClient) -> None:
    with pytest.raises(InvalidImageError, match="too large"):
        client.recognize(b"x" * (2 << 20))


def test_a_batch_that_is_too_large_is_no_image_that_is(client: RecognizerClient) -> None:
    with pytest.raises(InvalidRequestError, match="the batch is too large; send fewer images") as caught:
        client.recognize_batch([b"text:" + b"x" * (1 << 19)] * 4)
    assert not isinstance(caught.value, InvalidImageError)


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_oversized_images_are_never_sent(fake: FakeServer, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: reading it all would need a terabyte of memory
    with path.open("rb") as opened, RecognizerClient(fake.address, max_image_bytes=1000) as client:
        sources: dict[str, Any] = {"bytes": bytes(1001), "path": path, "file": opened}
        big = sources[kind]
        with pytest.raises(InvalidImageError, match="at most 1000 are sent"):
            client.recognize(big)
        for outcomes in (
            client.recognize_batch([b"text:a", big, b"text:b"]),
            list(client.recognize_stream([b"text:a", big, b"text:b"])),
        ):
            assert [isinstance(one.error, InvalidImageError) for one in outcomes] == [False, True, False]


def test_deadline(fake: FakeServer) -> None:
    with RecognizerClient(fake.address, timeout_s=0.2) as client, pytest.raises(DeadlineExceededError):
        client.recognize(b"slow")


def test_no_server_names_the_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    with RecognizerClient(address) as client, pytest.raises(ServerUnavailableError, match=address) as caught:
        client.recognize(b"text:ab")
    assert "Connection refused" in str(caught.value)
    assert "last error" not in str(caught.value)


@pytest.mark.parametrize(("retries", "works"), [(0, False), (3, True)])
def test_retries_while_unavailable(fake: FakeServer, retries: int, works: bool) -> None:
    fake.servicer.failures_left = 2
    with RecognizerClient(fake.address, retries=retries) as client:
        if works:
            assert client.recognize(b"text:ab").text == "ab"
            assert len(fake.servicer.requests) == 3
        else:
            with pytest.raises(ServerUnavailableError, match="stopping"):
                client.recognize(b"text:ab")
            assert len(fake.servicer.requests) == 1


def test_token_travels(fake: FakeServer) -> None:
    with RecognizerClient(fake.address, token="s3cret") as client:
        client.recognize(b"text:ab")
    assert fake.servicer.metadata[0]["authorization"] == "Bearer s3cret"


def test_no_options_send_none(client: RecognizerClient, fake: FakeServer) -> None:
    client.recognize(b"text:ab")
    assert not fake.servicer.requests[0].HasField("options")


def test_options_travel(client: RecognizerClient, fake: FakeServer) -> None:
    options = RecognitionOptions(
        model="en",
        decoder="beam",
        beam_width=9,
        word_weight=0.0,
        hotwords={"Fuchs": None, "Oss": 3.5},
        alternatives=5,
        words=True,
        characters=True,
        allowed_characters="abc",
        priority="low",
    )
    client.recognize(b"text:ab", options)
    sent = fake.servicer.requests[0].options
    assert sent.decoder.kind == pb.DECODER_KIND_BEAM
    assert sent.decoder.beam_width == 9
    # Zero switches the word model off, unset leaves the tuned weight: they must stay apart.
    assert sent.decoder.HasField("word_weight")
    assert not sent.decoder.HasField("character_weight")
    assert [(one.text, one.HasField("boost"), one.boost) for one in sent.hotwords] == [
        ("Fuchs", False, 0.0),
        ("Oss", True, 3.5),
    ]
    assert (sent.alternatives, sent.include_words, sent.include_characters) == (5, True, True)
    assert (sent.allowed_characters, sent.priority, sent.model) == ("abc", pb.PRIORITY_LOW, "en")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RecognitionOptions(decoder="best"), "decoder: got 'best', need one of greedy, beam"),  # type: ignore[arg-type]
        (RecognitionOptions(beam_width=-1), "beam_width: .*out of range"),
        (RecognitionOptions(beam_width="wide"), "beam_width: .*'str'"),  # type: ignore[arg-type]
        (RecognitionOptions(alternatives=-1), "alternatives: .*out of range"),
        (RecognitionOptions(words="yes"), "words: .*'str'"),  # type: ignore[arg-type]
        (RecognitionOptions(hotwords={"Anna": "much"}), "hotwords: .*str"),  # type: ignore[dict-item]
        (RecognitionOptions(hotwords=["Anna"]), "hotwords: got list, need a mapping"),  # type: ignore[arg-type]
        (RecognitionOptions(priority="first"), "priority: got 'first', need one of low"),  # type: ignore[arg-type]
    ],
)
def test_options_that_fit_no_message(
    client: RecognizerClient, options: RecognitionOptions, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"^options: {message}"):
        client.recognize(b"text:ab", options)


def test_batch_keeps_order_and_isolates_failures(client: RecognizerClient, tmp_path: Path) -> None:
    outcomes = client.recognize_batch([b"text:a", b"bad", tmp_path / "missing.png", b"text:d"])
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert [one.transcription.text if one.transcription else None for one in outcomes] == [
        "a",
        None,
        None,
        "d",
    ]
    with pytest.raises(InvalidImageError, match="3 bytes"):
        outcomes[1].result()
    with pytest.raises(InvalidImageError, match="missing"):
        outcomes[2].result()
    assert outcomes[3].result().text == "d"


def test_empty_batch_asks_nobody(client: RecognizerClient, fake: FakeServer) -> None:
    assert client.recognize_batch([]) == []
    assert fake.servicer.requests == []


def test_models(client: RecognizerClient) -> None:
    (model,) = client.models()
    assert (model.name, model.state, model.device, model.is_default) == ("en", "ready", "cpu", True)
    assert model.default_options["kind"] == "beam"
    assert model.default_options["beam_width"] == 50
    assert client.model("en") == model
    with pytest.raises(ModelNotFoundError, match="'xx'"):
        client.model("xx")


def test_import_is_light() -> None:
    script = (
        "import sys, longhand_client\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'torch', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_all_names_exist() -> None:
    assert all(hasattr(longhand_client, name) for name in longhand_client.__all__)


def test_one_call_may_have_less_time(client: RecognizerClient) -> None:
    with pytest.raises(DeadlineExceededError, match="no answer from"):
        client.recognize(b"slow", timeout_s=0.2)
    with pytest.raises(ValueError, match="timeout_s: got 0, need seconds"):
        client.recognize_batch([b"text:a"], timeout_s=0)


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e12])
def test_there_need_be_no_limit_of_time(client: RecognizerClient, timeout_s: float) -> None:
    assert client.recognize(b"text:a", timeout_s=timeout_s).text == "a"


def test_errors_name_the_call_as_the_server_s_log_does(client: RecognizerClient) -> None:
    with pytest.raises(InvalidImageError) as caught:
        client.recognize(b"bad")
    assert caught.value.request_id == "abc-1"


def test_an_asynchronous_client_may_be_made_before_its_loop(fake: FakeServer) -> None:
    client = AsyncRecognizerClient(fake.address)

    async def read() -> list[str]:
        try:
            outcomes = client.recognize_stream([b"text:b"])
            return [(await client.recognize(b"text:a")).text, *[one.result().text async for one in outcomes]]
        finally:
            await client.close()

    assert asyncio.run(read()) == ["a", "b"]


def test_a_server_of_something_else_is_said_to_be_one() -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    other.start()
    try:
        with RecognizerClient(address) as client, pytest.raises(UnsupportedError) as caught:
            client.recognize(b"text:a")
    finally:
        other.stop(0).wait()
    assert f"what answers at {address} is no Longhand server" in caught.value.message
