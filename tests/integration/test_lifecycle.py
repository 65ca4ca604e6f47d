"""Start, health, reflection, drain: the server as its operator sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from helpers import image_samples
from helpers.server_process import ServerProcess, run_server, server_command
from helpers.toy_model import draw_image, write_bundle
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_server.config import ListenConfig, ModelsConfig, ServerConfig
from longhand_server.ports import write_port
from longhand_server.server import build_server

_SERVICE = "longhand.v1.RecognitionService"
_INFERENCE = "inference.GRPCInferenceService"


def _health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)  # its type stubs know no asyncio


def test_it_says_what_it_serves_and_where(server: ServerProcess) -> None:
    line = f"Longhand serving model toy 1.0.0 (cpu, ONNX Runtime) on {server.address}"
    assert line in server.text().splitlines()


@pytest.mark.parametrize("service", ["", _SERVICE, _INFERENCE])
async def test_health_is_serving(channel: grpc.aio.Channel, service: str) -> None:
    answer = await _health(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_probe_tells_by_its_exit_code(server: ServerProcess) -> None:
    probe = [sys.executable, "-m", "longhand_server.probe"]
    assert subprocess.run([*probe, server.address], check=False).returncode == 0
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        done = subprocess.run([*probe, nobody], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{nobody}: UNAVAILABLE: ")
    command = [*probe, "--tls-ca", "/nonexistent"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2


async def test_health_of_an_unknown_service_is_not_found(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _health(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_service(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {_SERVICE, _INFERENCE, "grpc.health.v1.Health"} <= set(database.get_services())
        described = database.FindFileContainingSymbol(_SERVICE)
    assert described.name == "longhand/v1/recognition.proto"
    assert [method.name for method in described.service[0].method] == [
        "Recognize",
        "BatchRecognize",
        "StreamingRecognize",
        "ListModels",
        "GetModel",
    ]


async def test_sigterm_loses_no_accepted_call(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--threads", "1", "--max-queue", "1000") as server:
        await _terminate_under_load(server)
        assert await asyncio.to_thread(server.process.wait, 20) == 0


async def _terminate_under_load(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        image = draw_image("abcde" * 20)
        calls = [stub.Recognize(pb.RecognizeRequest(image=image)) for _ in range(300)]
        stream = stub.StreamingRecognize()
        await stream.write(pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()))
        for n in range(20):
            item = pb.StreamingRecognizeImage(request_id=str(n), image=image)
            await stream.write(pb.StreamingRecognizeRequest(image=item))
        for call in calls[:100]:
            await call
        server.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        texts = [answer.result.text for answer in answers if not isinstance(answer, BaseException)]
        refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert set(texts) == {"abcde" * 20}
        # Calls whose handlers had not begun may be turned away, but only so that a client may retry.
        assert {error.code() for error in refused} <= {grpc.StatusCode.UNAVAILABLE}
        assert len(texts) >= 150
        streamed: list[Any] = [await stream.read() for _ in range(20)]
        assert {response.result.text for response in streamed} == {"abcde" * 20}
        assert await stream.code() == grpc.StatusCode.UNAVAILABLE
        assert "stopping" in await stream.details()


async def test_sigterm_while_idle_streams_are_open(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path) as server:
        await _terminate_while_idle(server)
        assert await asyncio.to_thread(server.process.wait, 10) == 0


async def _terminate_while_idle(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stream = recognition_pb2_grpc.RecognitionServiceStub(channel).StreamingRecognize()
        await stream.write(pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()))
        silent = recognition_pb2_grpc.RecognitionServiceStub(channel).StreamingRecognize()
        await silent.wait_for_connection()
        watch = _health(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        assert await stream.code() == grpc.StatusCode.UNAVAILABLE
        assert await silent.code() == grpc.StatusCode.UNAVAILABLE


async def test_the_grace_begins_when_the_drain_delay_is_over(toy_bundle: Path, tmp_path: Path) -> None:
    waits = ("--drain-delay-s", "3", "--grace-s", "3", "--threads", "1")
    request = pb.BatchRecognizeRequest(items=[pb.BatchRecognizeItem(image=draw_image("abcde" * 20))] * 10)
    with ServerProcess(toy_bundle, tmp_path, *waits) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            await stub.BatchRecognize(request)  # the connection stands, and everything is warm
            begun = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(2.0)

            async def read_on() -> float:
                """One batch after the other until new calls are turned away; when the last one was answered."""
                last = time.monotonic()
                while True:
                    try:
                        answer = await stub.BatchRecognize(request)
                    except grpc.aio.AioRpcError as error:
                        details = error.details() or ""
                        # Where nothing was left to do after the last answer, the server is gone already.
                        if "stopping" not in details and "Connection refused" not in details:  # cut off
                            raise
                        return last
                    last = time.monotonic()
                    assert {outcome.result.text for outcome in answer.outcomes} == {"abcde" * 20}

            # Several, so that one of them is at work when the delay is over.
            last = max(await asyncio.gather(*(read_on() for _ in range(4))))
            assert last - begun > 3.0
        assert await asyncio.to_thread(server.process.wait, 10) == 0


async def test_traces_are_sent_before_the_end_unless_their_collector_hangs(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServerConfig(listen=ListenConfig(port=0), models=ModelsConfig(model=str(toy_bundle)))
    server = await build_server(config)
    begun, never = threading.Event(), threading.Event()

    def close() -> None:
        begun.set()
        never.wait(20)

    monkeypatch.setattr(server._tracer, "close", close)
    async with asyncio.timeout(10):
        await server.drain(0.1)
    assert begun.is_set()
    never.set()


def _failure(*arguments: str) -> tuple[int, str]:
    done = run_server([*arguments, "--port", "0"])
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_a_missing_model_is_named() -> None:
    code, line = _failure("--model", "nonesuch")
    assert code == 1
    assert "nonesuch" in line
    assert "neither a folder nor a shipped model" in line


@pytest.mark.parametrize("damage", ["bundle.json", "model.onnx", "missing", "hash", "key", "decoder"])
def test_a_corrupt_bundle_stops_the_start_with_one_line(tmp_path: Path, damage: str) -> None:
    folder = write_bundle(tmp_path)
    description = json.loads((folder / "bundle.json").read_text())
    if damage == "bundle.json":
        (folder / "bundle.json").write_text('{"format": 1, ')
    elif damage == "model.onnx":
        write_bundle(tmp_path, files={"model.onnx": b"no network at all" * 10})
    elif damage == "missing":
        (folder / "model.onnx").unlink()
    elif damage == "hash":
        with (folder / "model.onnx").open("ab") as file:
            file.write(b"x")
    elif damage == "key":
        del description["alphabet"]
        (folder / "bundle.json").write_text(json.dumps(description))
    else:
        description["decoder"]["beam_width"] = -5
        (folder / "bundle.json").write_text(json.dumps(description))
    code, line = _failure("--model", str(folder))
    assert code == 1
    named = "bundle.json" if damage in ("bundle.json", "key") else "model"
    assert named in line


@pytest.mark.parametrize("file", ["word.klm", "char.klm"])
def test_a_corrupt_language_model_stops_the_start_with_one_line(tmp_path: Path, file: str) -> None:
    folder = write_bundle(
        tmp_path, files={file: b"mmap lm http://kheafield.com/code format version 5\n" * 20}
    )
    code, line = _failure("--model", str(folder))
    assert code == 1
    assert file in line


def test_a_port_that_another_server_has_is_named(server: ServerProcess, toy_bundle: Path) -> None:
    port = server.address.rpartition(":")[2]
    done = run_server(["--model", str(toy_bundle), "--port", port])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


def test_wrong_settings_exit_with_2() -> None:
    done = run_server(["--port", "70000"])
    assert done.returncode == 2
    assert done.stderr == "longhand_server: --port: got 70000, need 0 to 65535\n"


def test_a_server_that_is_stopped_while_it_starts_ends_well(toy_bundle: Path) -> None:
    command = server_command("--model", str(toy_bundle), "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as starting:
        status = Path(f"/proc/{starting.pid}/status")
        # As process 1 of a container it would never see a signal that it has no handler for.
        while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGTERM - 1:
            time.sleep(0.005)
        starting.send_signal(signal.SIGTERM)
        assert starting.wait(20) == 0


def test_a_reload_that_hangs_does_not_keep_the_server(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "new").mkdir(parents=True)
    with ServerProcess(
        toy_bundle, tmp_path, "--models", str(tmp_path / "models"), "--grace-s", "1"
    ) as server:
        os.mkfifo(tmp_path / "models" / "new" / "bundle.json")  # as a disk that does not answer
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert server.stop(10) == 0


def test_bare_addresses_of_ipv6_and_unix_sockets(toy_bundle: Path, tmp_path: Path) -> None:
    metrics = ("--metrics-port", "0", "--metrics-host", "[::1]")
    with ServerProcess(toy_bundle, tmp_path, "--host", "::1", *metrics) as server:
        port = server.address.rpartition(":")[2]
        assert f"on [::1]:{port}" in server.text()
        assert "metrics on http://[::1]:" in server.text()
        with grpc.insecure_channel(f"[::1]:{port}") as channel:
            request = pb.RecognizeRequest(image=draw_image("cab"))
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            assert stub.Recognize(request, timeout=20).result.text == "cab"
    path = f"unix:{tmp_path}/socket"
    with (
        ServerProcess(toy_bundle, tmp_path, "--host", path) as server,
        grpc.insecure_channel(path) as channel,
    ):
        assert f"on {path}" in server.text()
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        assert stub.Recognize(request, timeout=20).result.text == "cab"


async def test_lines_of_a_server_that_logs_json_are_json(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--log-format", "json") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call: Any = channel.unary_unary("/longhand.v1.RecognitionService/Recognize")
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"\xff\xff no message")
            damaged = pb.RecognizeRequest(image=image_samples.plain_tiff(64, 64, tag_259=4))
            with pytest.raises(grpc.aio.AioRpcError):
                await recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize(damaged)
        server.process.send_signal(signal.SIGINT)  # Ctrl-C ends it as SIGTERM does
        assert server.process.wait(30) == 0
        lines = [json.loads(line) for line in server.text().splitlines() if not line.startswith("Longhand")]
    undecodable = [line for line in lines if "could not be decoded" in line["message"]]
    assert [(line["level"], "exception" in line) for line in undecodable] == [("warning", False)]
    assert any(line.get("peer", "").startswith("ipv4:127.0.0.1:") for line in lines)


async def test_a_model_that_cannot_be_loaded_is_told_without_the_server_s_files(
    toy_bundle: Path, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path / "models" / "late", name="late")
    arguments = ("--models", str(tmp_path / "models"), "--lazy")
    with ServerProcess(toy_bundle, tmp_path, *arguments) as server:
        (folder / "model.onnx").write_bytes(b"damaged")
        async with grpc.aio.insecure_channel(server.address) as channel:
            request = pb.RecognizeRequest(
                image=draw_image("cab"), options=pb.RecognitionOptions(model="late")
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize(request, timeout=20)
        assert caught.value.details() == "the model cannot be loaded; the server's log says why"
        assert f"): model late: {folder}/model.onnx is no ONNX network" in server.text()


def test_a_port_file_that_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("target")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("pipe", "link"):
        write_port(tmp_path / name, 50051)
    assert os.read(reader, 10) == b"50051\n"
    os.close(reader)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "50051\n"
