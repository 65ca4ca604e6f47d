"""StreamingRecognize over a real port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from helpers.bad_images import bad_images
from helpers.stream_reading import ReadAll, read_all_async, read_all_sync, texts
from helpers.toy_model import draw_image
from longhand.v1 import recognition_pb2 as pb
from longhand_server.config import ListenConfig, ModelsConfig, ServerConfig
from longhand_server.server import build_server

if TYPE_CHECKING:
    from longhand.v1.recognition_pb2_grpc import RecognitionServiceAsyncStub

_BAD = [data for data, _ in bad_images().values()]
_TEXTS = ["abc", "bad", "cab dec", "e d c b a", "abcde" * 6]


def config(options: pb.RecognitionOptions | None = None) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig(options=options))


def image(request_id: str, data: bytes) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(request_id=request_id, image=data))


async def read_all(
    stub: RecognitionServiceAsyncStub, messages: Iterable[pb.StreamingRecognizeRequest]
) -> list[pb.StreamingRecognizeResponse]:
    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        for message in messages:
            yield message

    return [answer async for answer in stub.StreamingRecognize(requests())]


async def test_every_image_is_answered_with_its_own_id(stub: RecognitionServiceAsyncStub) -> None:
    drawn = [draw_image(text) for text in _TEXTS]
    messages = [config()]
    for n in range(300):
        messages.append(image(f"good {n}", drawn[n % 5]))
        if n % 7 == 0:
            messages.append(image(f"bad {n}", _BAD[n // 7 % len(_BAD)]))
    answers = await read_all(stub, messages)
    ids = [answer.request_id for answer in answers]
    assert sorted(ids) == sorted(message.image.request_id for message in messages[1:])
    for answer in answers:
        kind, number = answer.request_id.split()
        if kind == "good":
            assert answer.result.text == _TEXTS[int(number) % 5]
        else:
            assert answer.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_options_hold_for_the_whole_stream(stub: RecognitionServiceAsyncStub) -> None:
    messages = [config(pb.RecognitionOptions(include_words=True))]
    messages += [image(str(n), draw_image("ab cd")) for n in range(5)]
    answers = await read_all(stub, messages)
    assert [[word.text for word in answer.result.words] for answer in answers] == [["ab", "cd"]] * 5


async def test_an_empty_stream_ends_well(stub: RecognitionServiceAsyncStub) -> None:
    assert await read_all(stub, [config()]) == []


@pytest.mark.parametrize(
    ("messages", "code", "text"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "first message must hold the config"),
        ([image("1", b"")], grpc.StatusCode.INVALID_ARGUMENT, "first message must hold the config"),
        (
            [pb.StreamingRecognizeRequest()],
            grpc.StatusCode.INVALID_ARGUMENT,
            "first message must hold the config",
        ),
        (
            [config(pb.RecognitionOptions(model="none"))],
            grpc.StatusCode.NOT_FOUND,
            "model none is not served",
        ),
        (
            [config(pb.RecognitionOptions(alternatives=999))],
            grpc.StatusCode.INVALID_ARGUMENT,
            "got 999, need 1 to 100",
        ),
        ([config(), config()], grpc.StatusCode.INVALID_ARGUMENT, "every message but the first"),
    ],
)
async def test_protocol_errors_end_the_stream(
    stub: RecognitionServiceAsyncStub,
    messages: list[pb.StreamingRecognizeRequest],
    code: grpc.StatusCode,
    text: str,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(stub, messages)
    assert caught.value.code() == code
    assert text in (caught.value.details() or "")


async def test_what_came_before_a_protocol_error_is_answered(stub: RecognitionServiceAsyncStub) -> None:
    call = stub.StreamingRecognize()
    await call.write(config())
    for n in range(10):
        await call.write(image(str(n), draw_image("abc")))
    await call.write(config())
    answers: list[Any] = [await call.read() for _ in range(10)]
    assert sorted((answer.request_id for answer in answers), key=int) == [str(n) for n in range(10)]
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "every message but the first" in await call.details()


def images(first: int, count: int) -> pb.StreamingRecognizeRequest:
    """Several images in one message, one in seven of them bad."""
    request = pb.StreamingRecognizeRequest()
    for n in range(first, first + count):
        data = b"bad" if n % 7 == 3 else draw_image(_TEXTS[n % 5])
        request.images.images.add(request_id=str(n), image=data)
    return request


@pytest.mark.parametrize("group_answers", [True, False])
async def test_groups_of_images(stub: RecognitionServiceAsyncStub, group_answers: bool) -> None:
    first = pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig(group_answers=group_answers))
    messages = [first, images(0, 100), image("100", draw_image(_TEXTS[0])), images(101, 1), images(102, 30)]
    answers = await read_all(stub, messages)
    if group_answers:
        # Asked for groups, the server gives nothing else: so the client knows that it may send some.
        assert all(1 <= len(answer.answers.answers) <= 32 for answer in answers)
        answers = [answer for group in answers for answer in group.answers.answers]
    assert sorted(int(answer.request_id) for answer in answers) == list(range(132))
    for answer in answers:
        n = int(answer.request_id)
        if n % 7 == 3:
            assert answer.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        else:
            assert answer.result.text == _TEXTS[n % 5]


@pytest.mark.parametrize("count", [0, 257])
async def test_sizes_of_groups_are_bounded(stub: RecognitionServiceAsyncStub, count: int) -> None:
    request = pb.StreamingRecognizeRequest(images=pb.StreamingRecognizeImages())
    for _ in range(count):
        request.images.images.add(image=b"x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(stub, [config(), request])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"images: got {count} images in a message, need 1 to 256" in (caught.value.details() or "")


async def test_too_long_an_id_fails_its_image_only(stub: RecognitionServiceAsyncStub) -> None:
    messages = [config(), image("x" * 257, draw_image("a")), image("y" * 256, draw_image("b"))]
    answers = {answer.request_id[0]: answer for answer in await read_all(stub, messages)}
    assert "got 257 bytes, at most 256" in answers["x"].error.message
    assert answers["y"].result.text == "b"


async def test_answers_come_while_the_stream_is_open(stub: RecognitionServiceAsyncStub) -> None:
    call = stub.StreamingRecognize()
    await call.write(config())
    for n in range(3):
        await call.write(image(str(n), draw_image("abc")))
        answer: Any = await asyncio.wait_for(call.read(), 5)
        assert answer.request_id == str(n)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_a_cancelled_stream_harms_nobody(stub: RecognitionServiceAsyncStub) -> None:
    for _ in range(20):
        call = stub.StreamingRecognize()
        await call.write(config())
        for n in range(20):
            await call.write(image(str(n), draw_image("abcde" * 6)))
        call.cancel()
    result = (await stub.Recognize(pb.RecognizeRequest(image=draw_image("abc")))).result
    assert result.text == "abc"


@pytest.mark.parametrize("read", [read_all_sync, read_all_async], ids=["sync", "async"])
async def test_the_client_holds_no_place_while_it_has_no_image(toy_bundle: Path, read: ReadAll) -> None:
    config = ServerConfig(
        models=ModelsConfig(model=str(toy_bundle)), listen=ListenConfig(port=0, stream_idle_s=0.1)
    )
    server = await build_server(config)
    count = server._metrics.registry.get_sample_value
    ended = {"method": "StreamingRecognize", "code": "UNAVAILABLE", "reason": "IDLE"}
    deadline = time.monotonic() + 30
    opened: list[float | None] = []

    def steps() -> Iterator[bytes | None]:
        """The images, and None where it is to wait."""
        yield draw_image("abc")
        while not count("longhand_calls_total", ended) and time.monotonic() < deadline:
            yield None
        yield from [None] * 20
        opened.append(count("longhand_calls_in_progress"))
        yield draw_image("bad")

    def slow() -> Iterator[bytes]:
        for step in steps():
            if step is None:
                time.sleep(0.01)
            else:
                yield step

    async def slow_async() -> AsyncIterator[bytes]:
        for step in steps():
            if step is None:
                await asyncio.sleep(0.01)
            else:
                yield step

    source: Any = slow_async() if read is read_all_async else slow()
    outcomes = await asyncio.to_thread(read, f"127.0.0.1:{server.port}", source, retries=0)
    assert texts(outcomes) == ["abc", "bad"]
    assert opened == [0]
    await server.drain(1)
