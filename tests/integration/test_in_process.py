"""Reading without a server: a channel into this process must say exactly what a server says."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_client import (
    DeadlineExceededError,
    LonghandError,
    ModelNotFoundError,
    RecognitionOptions,
    RecognizerClient,
    UnsupportedError,
    cli,
)
from longhand_server.config import ModelsConfig, ServerConfig
from longhand_server.errors import InvalidModelError
from longhand_server.in_process import InProcessChannel

Capture = pytest.CaptureFixture[str]
# What differs from run to run, and who answers.
VARYING = {"decode_image_ms", "queue_ms", "infer_ms", "beam_ms", "total_ms"}


@pytest.fixture(scope="module")
def channel(toy_bundle: Path) -> Iterator[InProcessChannel]:
    with InProcessChannel(ServerConfig(models=ModelsConfig(model=str(toy_bundle)))) as channel:
        yield channel


@pytest.fixture(scope="module")
def local(channel: InProcessChannel) -> RecognizerClient:
    return RecognizerClient("this process", retries=0, channel=channel)


@pytest.fixture
def served(server: ServerProcess) -> Iterator[RecognizerClient]:
    with RecognizerClient(server.address) as client:
        yield client


def facts(work: Callable[[], Any]) -> Any:
    """What a call gives, or its error with everything that it says, without the times."""
    try:
        result = work()
    except LonghandError as error:
        return type(error), error.message, error.code, error.reason, error.field, error.retry_after_s
    found = result.to_dict()
    return found | {"timings": {key: value for key, value in found["timings"].items() if key not in VARYING}}


@pytest.mark.parametrize(
    "options",
    [
        None,
        RecognitionOptions(words=True, characters=True, alternatives=3),
        RecognitionOptions(decoder="greedy", words=True),
        RecognitionOptions(hotwords={"abc": 3.0}, allowed_characters="abc"),
        RecognitionOptions(hotwords={"xyz": None}),
        RecognitionOptions(beam_width=5000),
        RecognitionOptions(model="nothing"),
    ],
)
@pytest.mark.parametrize("image", [draw_image("abc de"), b"no image", b"", draw_image("cab")[:200]])
def test_answers_and_errors_are_the_servers(
    local: RecognizerClient, served: RecognizerClient, image: bytes, options: RecognitionOptions | None
) -> None:
    assert facts(lambda: local.recognize(image, options)) == facts(lambda: served.recognize(image, options))
    streams = [_streamed(one, image, options) for one in (local, served)]
    assert streams[0] == streams[1]


def _streamed(client: RecognizerClient, image: bytes, options: RecognitionOptions | None) -> Any:
    return facts(lambda: next(client.recognize_stream([image], options)).result())


def test_models_are_described_as_the_server_does(local: RecognizerClient, served: RecognizerClient) -> None:
    assert local.models() == served.models()
    assert facts_of_error(lambda: local.model("x")) == facts_of_error(lambda: served.model("x"))


def facts_of_error(work: Callable[[], object]) -> tuple[object, ...]:
    with pytest.raises(ModelNotFoundError) as caught:
        work()
    return caught.value.message, caught.value.reason, caught.value.field


def test_batches(local: RecognizerClient) -> None:
    outcomes = local.recognize_batch([draw_image("ab"), b"broken", draw_image("cd")])
    assert [one.transcription and one.transcription.text for one in outcomes] == ["ab", None, "cd"]
    assert outcomes[1].error is not None
    assert outcomes[1].error.reason == "INVALID_IMAGE"


def test_a_long_stream_keeps_its_order_and_its_bound(local: RecognizerClient) -> None:
    image, pulled, most = draw_image("abc"), 0, 0

    def images() -> Iterator[bytes]:
        nonlocal pulled
        for _ in range(300):
            pulled += 1
            yield image

    for number, outcome in enumerate(local.recognize_stream(images(), look_ahead=8)):
        most = max(most, pulled - number)
        assert (outcome.index, outcome.result().text) == (number, "abc")
    assert pulled == 300
    assert most <= 9


def test_leaving_a_stream_ends_its_threads(local: RecognizerClient) -> None:
    image, before = draw_image("a"), threading.active_count()

    def endless() -> Iterator[bytes]:
        while True:
            yield image

    stream = local.recognize_stream(endless(), look_ahead=4)
    assert next(stream).result().text == "a"
    stream.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_source_that_runs_ahead_does_not_outlive_its_call(channel: InProcessChannel) -> None:
    image, before = draw_image("a"), threading.active_count()

    def endless() -> Iterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        while True:
            yield pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(image=image))

    for _ in range(20):  # at some of the ends a request lies there that nobody has taken
        call = rpc.RecognitionServiceStub(channel).StreamingRecognize(endless())
        assert next(call).result.text == "a"
        call.cancel()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_servicer_that_reads_nothing_stops_the_source(
    channel: InProcessChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(requests: object, context: object) -> AsyncIterator[object]:
        await asyncio.Event().wait()
        yield b""

    third = threading.Event()

    def endless() -> Iterator[bytes]:
        yield from (b"", b"")
        third.set()
        yield from itertools.repeat(b"")

    handlers: dict[str, Any] = {"/some.Service/Hang": grpc.stream_stream_rpc_method_handler(hang)}
    monkeypatch.setattr(channel, "_handlers", handlers)
    call = channel.stream_stream("/some.Service/Hang")(endless())
    assert not third.wait(0.2)
    call.cancel()


def test_a_stream_that_fails_oddly_does_not_look_as_if_it_were_over(
    channel: InProcessChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(requests: object, context: object) -> AsyncIterator[object]:
        if requests is not None:
            raise RuntimeError("odd")
        yield b""

    handlers: dict[str, Any] = {"/some.Service/Fail": grpc.stream_stream_rpc_method_handler(fail)}
    monkeypatch.setattr(channel, "_handlers", handlers)
    with pytest.raises(RuntimeError, match="odd"):
        list(channel.stream_stream("/some.Service/Fail")(iter([])))


def test_a_source_that_fails_gives_its_own_error(local: RecognizerClient) -> None:
    def images() -> Iterator[bytes]:
        yield draw_image("a")
        raise RuntimeError("the scanner is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        list(local.recognize_stream(images()))


def test_a_deadline_holds(local: RecognizerClient, channel: InProcessChannel) -> None:
    impatient = RecognizerClient("this process", timeout_s=1e-9, channel=channel)
    with pytest.raises(DeadlineExceededError):
        impatient.recognize(draw_image("abc"))
    assert local.recognize(draw_image("abc")).text == "abc"


def test_a_deadline_holds_for_a_stream(channel: InProcessChannel) -> None:
    stub = rpc.RecognitionServiceStub(channel)
    end = threading.Event()

    def requests() -> Iterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        end.wait(20)

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(requests(), timeout=0.3))
    end.set()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_it_lacks_is_said_as_a_server_says_it(
    channel: InProcessChannel, local: RecognizerClient
) -> None:
    with pytest.raises(UnsupportedError):
        local.health()
    for kind in (channel.unary_stream, channel.stream_unary, channel.stream_stream):
        with pytest.raises(grpc.RpcError) as caught:
            kind("/some.Service/Method")(iter([]))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_generated_stubs_work_over_it(channel: InProcessChannel) -> None:
    grpc.channel_ready_future(channel).result(10)
    stub = rpc.RecognitionServiceStub(channel)
    assert stub.Recognize(pb.RecognizeRequest(image=draw_image("de"))).result.text == "de"

    def broken() -> Iterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        raise ValueError("no more")

    with pytest.raises(grpc.RpcError, match="no more") as caught:
        list(stub.StreamingRecognize(broken()))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


def test_a_stream_is_an_iterator_as_grpcs_own_is_and_stays_at_its_end(channel: InProcessChannel) -> None:
    config = pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
    image = pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(image=draw_image("de")))
    stub = rpc.RecognitionServiceStub(channel)
    call = stub.StreamingRecognize(iter([config, image]))
    assert next(call).result.text == "de"
    for _ in range(2):
        assert list(call) == []
    call = stub.StreamingRecognize(iter([image]))
    for _ in range(2):
        with pytest.raises(grpc.RpcError, match="must hold the config"):
            next(call)


def test_closing_ends_what_is_open(toy_bundle: Path) -> None:
    channel = InProcessChannel(ServerConfig(models=ModelsConfig(model=str(toy_bundle))))
    never = threading.Event()

    def waiting() -> Iterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig())
        never.wait(20)

    call = rpc.RecognitionServiceStub(channel).StreamingRecognize(waiting())
    channel.close()
    channel.close()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    call.cancel()
    never.set()
    with pytest.raises(ValueError, match="closed"):
        RecognizerClient(channel=channel).recognize(b"x")


def test_closing_ends_a_call_of_another_thread(toy_bundle: Path) -> None:
    channel = InProcessChannel(ServerConfig(models=ModelsConfig(model=str(toy_bundle))))
    begun = threading.Event()

    async def hang(request: object, context: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    channel._handlers = {"/some.Service/Hang": grpc.unary_unary_rpc_method_handler(hang)}
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(channel.unary_unary("/some.Service/Hang"), b"")
        assert begun.wait(10)
        channel.close()
        with pytest.raises(grpc.RpcError, match="Channel closed!") as caught:
            call.result(10)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_a_call_that_begins_while_the_channel_closes_ends(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = InProcessChannel(ServerConfig(models=ModelsConfig(model=str(toy_bundle))))
    closing = threading.Thread(target=channel.close)
    submit = asyncio.run_coroutine_threadsafe

    def slowly(work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Future[Any]:
        if closing.ident is None:
            closing.start()
            closing.join(0.3)
        return submit(work, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", slowly)
    with contextlib.suppress(grpc.RpcError):  # it may be answered or cancelled
        rpc.RecognitionServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=10)
    closing.join(10)
    assert not closing.is_alive()


def test_nothing_is_kept_of_calls_and_channels_that_are_over(toy_bundle: Path) -> None:
    before = threading.active_count()
    with InProcessChannel(ServerConfig(models=ModelsConfig(model=str(toy_bundle)))) as channel:
        rpc.RecognitionServiceStub(channel).ListModels(pb.ListModelsRequest())
        assert not channel._calls
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_broken_model_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(InvalidModelError):
        InProcessChannel(ServerConfig(models=ModelsConfig(model=str(tmp_path))))
    assert threading.active_count() <= before


def test_a_channel_that_nobody_closes_does_not_keep_the_process(toy_bundle: Path) -> None:
    script = (
        "import sys; from longhand_server.config import ModelsConfig, ServerConfig; "
        "from longhand_server.in_process import InProcessChannel; "
        "channel = InProcessChannel(ServerConfig(models=ModelsConfig(model=sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", script, str(toy_bundle)], check=True, timeout=60)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name, content in (("1", draw_image("abc")), ("2", b"no image"), ("3", draw_image("de ab"))):
        (tmp_path / f"{name}.png").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--words", "--characters", "--alternatives", "2"],
        ["--tsv", "--lm-weight", "0.5", "--decoder", "beam"],
        ["--allowed-characters", "abx"],
        ["--format", "text", "--beam-width", "4"],
    ],
)
def test_the_command_prints_the_same(
    server: ServerProcess, toy_bundle: Path, scans: Path, capsys: Capture, arguments: list[str]
) -> None:
    command = [str(scans), str(scans / "gone.png"), *arguments]
    code = cli.main([*command, "--address", server.address])
    expected = capsys.readouterr()
    assert cli.main([*command, "--local", "--model", str(toy_bundle)]) == code
    assert capsys.readouterr() == expected
    assert expected.err


def test_the_command_reads_standard_input_and_resumes(
    toy_bundle: Path, scans: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.jsonl"
    command = ["--local", "--model", str(toy_bundle), "--json", "--out", str(out), "--resume"]
    assert cli.main([str(scans / "1.png"), *command]) == 0
    assert cli.main([str(scans / "1.png"), str(scans / "3.png"), *command]) == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["abc", "de ab"]
    assert "1 image read by an earlier run" in capsys.readouterr().err


def test_a_damaged_model_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    assert cli.main(["x.png", "--local", "--model", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("longhand: ")
    assert str(tmp_path) in message


def test_without_the_servers_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("longhand_server"):
            raise ImportError("No module named 'onnxruntime'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert cli.main(["x.png", "--local"]) == 1
    message = capsys.readouterr().err
    assert "pip install '.[server]' in Longhand's folder" in message
    assert "onnxruntime" in message


def test_an_address_makes_no_sense_beside_it(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["x.png", "--local", "--address", "localhost:1"])
    assert caught.value.code == 2
    assert "--address" in capsys.readouterr().err
