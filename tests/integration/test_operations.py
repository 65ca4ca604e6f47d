"""Several models, reload, metrics, logs, request ids, deadlines and limits against real servers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

import longhand_server
from helpers.server_process import ServerProcess, run_server, server_command
from helpers.toy_model import draw_image, write_bundle
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_client import RecognizerClient


def wait_for(server: ServerProcess, text: str) -> None:
    end = time.monotonic() + 20
    while text not in server.text():
        assert time.monotonic() < end, f"{text!r} did not come:\n{server.text()}"
        time.sleep(0.02)


def names(stub: recognition_pb2_grpc.RecognitionServiceStub) -> list[tuple[str, str, int]]:
    models = stub.ListModels(pb.ListModelsRequest()).models
    return [(model.name, model.version, model.state) for model in models]


def test_models_folder_lazy_loading_and_hot_reload(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models / "a1", name="alpha", version="1.9")
    write_bundle(models / "a2", name="alpha", version="1.10")
    write_bundle(models / "b", name="beta", version="1")
    ready, unloaded = pb.MODEL_STATE_READY, pb.MODEL_STATE_UNLOADED
    with (
        ServerProcess("beta", tmp_path / "run", "--models", str(models), "--lazy") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        wanted = [("beta", "1", ready), ("alpha", "1.10", unloaded), ("alpha", "1.9", unloaded)]
        assert names(stub) == wanted

        def read(model: str = "", version: str = "") -> tuple[str, str, str]:
            options = pb.RecognitionOptions(model=model, model_version=version)
            result = stub.Recognize(pb.RecognizeRequest(image=draw_image("abc"), options=options)).result
            return result.text, result.model, result.model_version

        assert read() == ("abc", "beta", "1")
        assert read("alpha") == ("abc", "alpha", "1.10")
        assert read("alpha", "1.9") == ("abc", "alpha", "1.9")
        assert {state for _, _, state in names(stub)} == {ready}

        # A damaged newcomer changes nothing; a sound one takes over.
        write_bundle(models / "b2", name="beta", version="2")
        (models / "b2" / "model.onnx").write_bytes(b"damaged")
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "reload failed, everything stays as it was")
        assert read() == ("abc", "beta", "1")
        write_bundle(models / "b2", name="beta", version="2")
        (models / "a1" / "bundle.json").unlink()
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "model alpha 1.9 drains")
        wait_for(server, "reloaded; serving beta 2, alpha 1.10, beta 1")
        assert read() == ("abc", "beta", "2")
        assert read("beta", "1") == ("abc", "beta", "1")
        with pytest.raises(grpc.RpcError, match=r"model alpha 1\.9 is not served"):
            read("alpha", "1.9")


async def test_reload_under_load_loses_nothing(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", version="1")
    with ServerProcess(bundle, tmp_path / "run", "--max-queue", "1000") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            stream = stub.StreamingRecognize()
            await stream.write(pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()))

            async def over_stream(n: int) -> str:
                image = pb.StreamingRecognizeImage(request_id=str(n), image=draw_image("cab"))
                await stream.write(pb.StreamingRecognizeRequest(image=image))
                answer = await stream.read()
                assert isinstance(answer, pb.StreamingRecognizeResponse)
                assert answer.result.text == "cab", answer
                return answer.result.model_version

            versions = {await over_stream(0)}
            for version in ("2", "3"):
                write_bundle(bundle, version=version)
                server.process.send_signal(signal.SIGHUP)
                calls = [
                    stub.Recognize(pb.RecognizeRequest(image=draw_image("abcde" * 5))) for _ in range(150)
                ]
                answers = await asyncio.gather(*calls)
                assert {answer.result.text for answer in answers} == {"abcde" * 5}
                await asyncio.to_thread(wait_for, server, f"reloaded; serving toy {version}")
                versions.add(await over_stream(int(version)))
            assert versions == {"1", "2", "3"}


def test_an_odd_bundle_does_not_end_reloading(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", version="1")
    with ServerProcess(bundle, tmp_path / "run") as server:
        (bundle / "bundle.json").write_text("[" * 100_000)  # a RecursionError, perhaps
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "everything stays as it was")
        write_bundle(bundle, version="2")
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, "reloaded; serving toy 2")
        assert server.stop() == 0
        assert server.text().count("reloaded; ") == 1


def test_a_reload_that_is_asked_for_while_it_starts_does_not_kill(toy_bundle: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        folder = tmp_path / workers
        folder.mkdir()
        port_file = folder / "port"
        command = server_command("--model", str(toy_bundle), "--port", "0", "--port-file", str(port_file))
        process = subprocess.Popen([*command, "--workers", workers], stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 30
            while not port_file.exists():
                assert process.poll() is None
                assert time.monotonic() < end
                if _heeds_or_ignores(process.pid, signal.SIGHUP):  # until then Python itself is only starting
                    process.send_signal(signal.SIGHUP)
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def _heeds_or_ignores(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn", "SigCgt"))
    ]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_a_model_that_is_written_over_goes_on_reading(tmp_path: Path) -> None:
    # A language model on top, since a mapped one that shrinks would kill the server.
    shipped = Path(longhand_server.__file__).parent / "models" / "en" / "char.klm"
    files = {"char.klm": shipped.read_bytes()} if shipped.exists() else {}
    decoder = {"beam_width": 20, "character_weight": 0.01}
    bundle = write_bundle(tmp_path / "bundle", files=files, decoder=decoder)
    with (
        ServerProcess(bundle, tmp_path / "run") as server,
        RecognizerClient(server.address) as client,
    ):
        assert client.recognize(draw_image("abc")).text == "abc"
        for file in bundle.iterdir():
            file.write_bytes(b"")
        assert client.recognize(draw_image("cab")).text == "cab"


def test_two_bundles_of_one_name_and_version_stop_the_start(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_bundle(tmp_path / folder, name="same", version="1")
    done = run_server(["--models", str(tmp_path), "--model", "same", "--port", "0"])
    assert done.returncode == 1
    assert "same 1 stands in" in done.stderr.splitlines()[-1]


def test_metrics_logs_and_request_ids(toy_bundle: Path, tmp_path: Path) -> None:
    arguments = ["--metrics-port", "0", "--log-format", "json", "--log-calls"]
    with ServerProcess(toy_bundle, tmp_path, *arguments) as server:
        (line,) = (line for line in server.text().splitlines() if line.startswith("metrics on "))
        url = line.removeprefix("metrics on ")
        with grpc.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            request = pb.RecognizeRequest(image=draw_image("dead cab"))
            answer, call = stub.Recognize.with_call(request, metadata=(("x-request-id", "abc-123"),))
            assert answer.result.text == "dead cab"
            assert ("x-request-id", "abc-123") in [tuple(item) for item in call.trailing_metadata()]
            with pytest.raises(grpc.RpcError) as caught:
                stub.Recognize(
                    pb.RecognizeRequest(image=b"secret bytes"), metadata=(("x-request-id", "a b"),)
                )
            trailers: dict[str, Any] = {item.key: item.value for item in caught.value.trailing_metadata()}
            made_up = trailers["x-request-id"]
            assert made_up not in ("", "a b", "abc-123")
        text = _metrics(url, until="longhand_calls_in_progress 0.0")
        assert 'longhand_calls_total{code="OK",method="Recognize",reason=""} 1.0' in text
        code = 'code="INVALID_ARGUMENT",method="Recognize",reason="INVALID_IMAGE"'
        assert f"longhand_calls_total{{{code}}} 1.0" in text
        assert 'longhand_lines_total{model="toy",reason="INVALID_IMAGE"} 1.0' in text
        assert 'longhand_batch_size_count{model="toy"} 1.0' in text
        assert 'longhand_stage_seconds_count{model="toy",stage="infer"} 1.0' in text
        assert 'longhand_queue_images{model="toy"} 0.0' in text
        assert "longhand_calls_in_progress 0.0" in text
        assert server.stop() == 0
        entries = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
        calls = [entry for entry in entries if entry["logger"] == "longhand_server.access"]
        assert [(entry["code"], entry["request_id"]) for entry in calls] == [
            ("OK", "abc-123"),
            ("INVALID_ARGUMENT", made_up),
        ]
        assert calls[0]["ms"] > 0
        assert "dead cab" not in server.text()
        assert "secret bytes" not in server.text()


def _metrics(url: str, until: str) -> str:
    """The metrics page; a call is counted a moment after its client has the answer."""
    end = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(url) as page:
            text: str = page.read().decode()
        if until in text or time.monotonic() > end:
            return text
        time.sleep(0.02)


def test_a_full_disk_for_logs_stops_nothing(toy_bundle: Path, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    arguments = ["--model", str(toy_bundle), "--port", "0", "--port-file", str(port_file), "--log-calls"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(server_command(*arguments), stdout=subprocess.DEVNULL, stderr=full)
    try:
        end = time.monotonic() + 30
        while not port_file.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        with grpc.insecure_channel(f"127.0.0.1:{int(port_file.read_text())}") as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            for _ in range(5):
                assert stub.Recognize(pb.RecognizeRequest(image=draw_image("bed"))).result.text == "bed"
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


async def test_open_calls_are_bounded(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--max-calls", "2") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            streams = [stub.StreamingRecognize() for _ in range(2)]
            image = pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(image=draw_image("a")))
            for stream in streams:
                await stream.write(pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()))
                await stream.write(image)
                assert await stream.read() is not grpc.aio.EOF
            with pytest.raises(grpc.aio.AioRpcError, match="2 calls are open already, at most 2") as caught:
                await stub.ListModels(pb.ListModelsRequest())
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            await streams[0].done_writing()
            assert await streams[0].code() == grpc.StatusCode.OK
            await asyncio.sleep(0.2)  # the place is free a moment after the client has its status
            assert (await stub.ListModels(pb.ListModelsRequest())).models


async def test_streams_keep_to_small_limits_of_messages(toy_bundle: Path, tmp_path: Path) -> None:
    texts = ["abc", "bad", "cab dec", "e d c b a"]
    images = [draw_image(text) for text in texts]
    for limits in (["--max-batch-items", "3"], ["--max-request-bytes", "8192"], ["--max-batch-items", "1"]):
        with (
            ServerProcess(toy_bundle, tmp_path, *limits) as server,
            RecognizerClient(server.address) as client,
        ):
            outcomes = client.recognize_stream(images[n % 4] for n in range(300))
            assert [outcome.result().text for outcome in outcomes] == [texts[n % 4] for n in range(300)]


async def test_deadlines_and_limits(toy_bundle: Path, tmp_path: Path) -> None:
    arguments = ["--threads", "1", "--max-queue", "2", "--max-request-bytes", "100000"]
    with ServerProcess(toy_bundle, tmp_path, *arguments) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            request = pb.RecognizeRequest(image=draw_image("abcde" * 20))
            results = await asyncio.gather(
                *(stub.Recognize(request) for _ in range(200)), return_exceptions=True
            )
            refused = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
            assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert len(refused) < 200
            trailers: dict[str, Any] = dict(refused[0].trailing_metadata() or ())
            assert int(trailers["grpc-retry-pushback-ms"]) >= 50
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Recognize(request, timeout=0.0001)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Recognize(pb.RecognizeRequest(image=bytes(200_000)))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await stub.Recognize(request)).result.text == "abcde" * 20
