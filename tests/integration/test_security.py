"""TLS, mTLS and tokens against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.certificates import make_authority, make_certificate
from helpers.server_process import ServerProcess, run_server
from helpers.toy_model import draw_image
from longhand.oip import inference_pb2 as oip
from longhand.oip import inference_pb2_grpc
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc
from longhand_client import OverloadedError, RecognizerClient
from longhand_server.config import ListenConfig, ModelsConfig, SecurityConfig, ServerConfig
from longhand_server.server import build_server

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")


def read(address: str, credentials: grpc.ChannelCredentials | None = None, token: str = "") -> str:
    """One call; the address's certificate must be for localhost."""
    options = [("grpc.ssl_target_name_override", "localhost")]
    channel = (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    )
    with channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        request = pb.RecognizeRequest(image=draw_image("bad"))
        return stub.Recognize(request, metadata=metadata, timeout=10).result.text


def refused(
    address: str, credentials: grpc.ChannelCredentials | None = None, token: str = ""
) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        read(address, credentials, token)
    code: grpc.StatusCode = caught.value.code()
    return code


def test_mutual_tls_and_certificates_that_change(toy_bundle: Path, tmp_path: Path) -> None:
    authority, other = make_authority(tmp_path / "ca"), make_authority(tmp_path / "other")
    certificate, key = make_certificate(tmp_path / "server", authority)
    mine, strangers = (
        make_certificate(tmp_path / "client", authority, "client"),
        make_certificate(tmp_path / "stranger", other, "client"),
    )

    def client(root: Path, pair: tuple[Path, Path] | None) -> grpc.ChannelCredentials:
        chain, private = (pair[0].read_bytes(), pair[1].read_bytes()) if pair else (None, None)
        return grpc.ssl_channel_credentials(root.read_bytes(), private, chain)

    arguments = ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority[0])]
    with ServerProcess(toy_bundle, tmp_path / "run", *arguments) as server:
        assert read(server.address, client(authority[0], mine)) == "bad"
        assert refused(server.address) == grpc.StatusCode.UNAVAILABLE  # no TLS at all
        assert refused(server.address, client(authority[0], None)) == grpc.StatusCode.UNAVAILABLE
        assert refused(server.address, client(authority[0], strangers)) == grpc.StatusCode.UNAVAILABLE
        expired = make_certificate(tmp_path / "expired", authority, "client", days=-1)
        assert refused(server.address, client(authority[0], expired)) == grpc.StatusCode.UNAVAILABLE
        assert refused(server.address, client(other[0], mine)) == grpc.StatusCode.UNAVAILABLE
        # The operator puts a certificate of another authority in place: new connections see it.
        new_certificate, new_key = make_certificate(tmp_path / "renewed", other)
        time.sleep(0.05)
        shutil.copy(new_key, key)
        shutil.copy(new_certificate, certificate)
        assert read(server.address, client(other[0], mine)) == "bad"
        assert refused(server.address, client(authority[0], mine)) == grpc.StatusCode.UNAVAILABLE


def test_files_that_do_not_belong_together_are_named(toy_bundle: Path, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "ca")
    certificate, key = make_certificate(tmp_path / "one", authority)
    _, other_key = make_certificate(tmp_path / "two", authority)
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for files in (
        ("--tls-cert", certificate, "--tls-key", other_key),
        ("--tls-cert", junk, "--tls-key", key),
        ("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", junk),
    ):
        done = run_server(["--model", str(toy_bundle), "--port", "0", *map(str, files)])
        assert done.returncode == 2
        assert "no usable PEM certificate, key and authority" in done.stderr
        assert str(files[1]) in done.stderr


def test_a_comment_in_the_authoritys_file_may_be_in_any_language(toy_bundle: Path, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "ca")
    certificate, key = make_certificate(tmp_path / "server", authority)
    commented = tmp_path / "commented.pem"
    commented.write_bytes("# Zertifizierungsstelle für Zürich\n".encode() + authority[0].read_bytes())
    files = ("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", commented)
    with ServerProcess(toy_bundle, tmp_path / "run", *map(str, files)) as server:
        credentials = grpc.ssl_channel_credentials(
            authority[0].read_bytes(), key.read_bytes(), certificate.read_bytes()
        )
        assert read(server.address, credentials) == "bad"


def test_the_probe_speaks_tls(toy_bundle: Path, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "ca")
    certificate, key = make_certificate(tmp_path / "server", authority)
    files = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with ServerProcess(toy_bundle, tmp_path / "run", *files) as server:
        probe = [sys.executable, "-m", "longhand_server.probe", server.address]
        trust = ["--tls-ca", str(authority[0]), "--tls-name", "localhost"]
        assert subprocess.run([*probe, *trust], check=False).returncode == 0
        assert subprocess.run(probe, check=False).returncode == 2
        # As in a container, whose settings say that it encrypts, but not whom to trust. A proxy is not asked.
        inside = {**os.environ, "LONGHAND_TLS_CERT": str(certificate), "http_proxy": "http://127.0.0.1:9"}
        assert subprocess.run(probe, check=False, env=inside).returncode == 0
    assert subprocess.run(probe, check=False, env=inside).returncode == 2


def test_the_probe_asks_no_proxy(server: ServerProcess) -> None:
    probe = [sys.executable, "-m", "longhand_server.probe", server.address]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    assert subprocess.run(probe, check=False, env=environment).returncode == 0


def test_rates_of_batches_and_streams(toy_bundle: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"me {hashlib.sha256(b'secret').hexdigest()} 5\n")
    image = draw_image("bad")
    with ServerProcess(toy_bundle, tmp_path / "run", "--token-file", str(tokens)) as server:
        time.sleep(1.0)  # the allowance is full
        with RecognizerClient(server.address, token="secret", retries=0) as client:
            # A batch beyond the allowance is read, and paid for afterwards.
            assert [outcome.result().text for outcome in client.recognize_batch([image] * 8)] == ["bad"] * 8
            with pytest.raises(OverloadedError, match="may send 5 images a second"):
                client.recognize(image)
            # A stream waits for its turns.
            begun = time.monotonic()
            assert [outcome.result().text for outcome in client.recognize_stream([image] * 6)] == ["bad"] * 6
            assert 1.0 < time.monotonic() - begun < 10.0


def test_tokens_rate_limits_and_their_reload(toy_bundle: Path, tmp_path: Path) -> None:
    def line(name: str, token: str, rate: str = "") -> str:
        return f"{name} {hashlib.sha256(token.encode()).hexdigest()} {rate}\n"

    tokens = tmp_path / "tokens"
    tokens.write_text(line("archive", "one") + line("web", "two", "0.001"))
    with ServerProcess(toy_bundle, tmp_path / "run", "--token-file", str(tokens)) as server:
        assert read(server.address, token="one") == "bad"
        assert refused(server.address) == grpc.StatusCode.UNAUTHENTICATED
        assert refused(server.address, token="three") == grpc.StatusCode.UNAUTHENTICATED
        assert read(server.address, token="two") == "bad"
        with grpc.insecure_channel(server.address) as channel:
            stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
            request = pb.RecognizeRequest(image=draw_image("bad"))
            with pytest.raises(grpc.RpcError) as caught:
                stub.Recognize(request, metadata=(("authorization", "Bearer two"),))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            trailers: dict[str, Any] = {item.key: item.value for item in caught.value.trailing_metadata()}
            assert int(trailers["grpc-retry-pushback-ms"]) > 100_000
            # Probes need no token.
            health = health_pb2_grpc.HealthStub(channel)
            status = health.Check(health_pb2.HealthCheckRequest()).status  # type: ignore[attr-defined]
            assert status == health_pb2.HealthCheckResponse.SERVING
        tokens.write_text(line("archive", "four"))
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while "reloaded" not in server.text() and time.monotonic() < end:
            time.sleep(0.02)
        assert read(server.address, token="four") == "bad"
        assert refused(server.address, token="one") == grpc.StatusCode.UNAUTHENTICATED
        for token in ("one", "two", "three", "four"):
            assert f"Bearer {token}" not in server.text()


@pytest.mark.parametrize("protocol", ["longhand", "oip"])
async def test_open_streams_of_a_revoked_token_end(protocol: str, toy_bundle: Path, tmp_path: Path) -> None:
    def rows(**tokens: str) -> str:
        return "".join(
            f"{name} {hashlib.sha256(token.encode()).hexdigest()} 2\n" for name, token in tokens.items()
        )

    tokens = tmp_path / "tokens"
    tokens.write_text(rows(gone="one", renewed="two", kept="three"))
    config = ServerConfig(
        models=ModelsConfig(model=str(toy_bundle)),
        listen=ListenConfig(port=0),
        security=SecurityConfig(token_file=str(tokens)),
    )
    server = await build_server(config)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        streams = [await _stream_of_one(channel, protocol, token) for token in ("one", "one", "two", "three")]
        # This one has more to read than it may at once.
        for _ in range(20):
            await streams[1].write(_image(protocol))
        tokens.write_text(rows(renewed="four", kept="three", new="five"))
        await server.reload()
        async with asyncio.timeout(20):
            # Some of the images may have had their turn before.
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _read(streams[1], 20)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            for stream in (streams[0], streams[2]):  # though nothing comes on them
                with pytest.raises(
                    grpc.aio.AioRpcError, match="the token is not known here any more"
                ) as caught:
                    await stream.read()
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            await streams[3].write(_image(protocol))
            assert await streams[3].read() is not grpc.aio.EOF
            streams[3].cancel()
    await server.drain(5.0)


async def _stream_of_one(channel: grpc.aio.Channel, protocol: str, token: str) -> Any:
    """A stream on which an image has been read."""
    metadata = (("authorization", f"Bearer {token}"),)
    stream: Any
    if protocol == "oip":
        stream = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(metadata=metadata)
    else:
        stream = recognition_pb2_grpc.RecognitionServiceStub(channel).StreamingRecognize(metadata=metadata)
        await stream.write(pb.StreamingRecognizeRequest(config=pb.StreamingRecognizeConfig()))
    await stream.write(_image(protocol))
    assert await stream.read() is not grpc.aio.EOF
    return stream


async def _read(stream: Any, answers: int) -> None:
    for _ in range(answers):
        assert await stream.read() is not grpc.aio.EOF


def _image(protocol: str) -> pb.StreamingRecognizeRequest | oip.ModelInferRequest:
    if protocol == "longhand":
        return pb.StreamingRecognizeRequest(image=pb.StreamingRecognizeImage(image=draw_image("bad")))
    request = oip.ModelInferRequest(model_name="toy")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(draw_image("bad"))
    return request


def test_other_machines_are_not_served_unprotected(toy_bundle: Path) -> None:
    done = run_server(["--model", str(toy_bundle), "--host", "0.0.0.0", "--port", "0"])
    assert done.returncode == 2
    assert "can be reached from other machines" in done.stderr
    assert "--insecure" in done.stderr


@pytest.mark.parametrize(
    "method", ["longhand.v1.RecognitionService/Recognize", "inference.GRPCInferenceService/RepositoryIndex"]
)
def test_messages_of_callers_without_a_token_are_not_even_read(
    method: str, toy_bundle: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"archive {hashlib.sha256(b'secret').hexdigest()}\n")
    with ServerProcess(toy_bundle, tmp_path, "--token-file", str(tokens)) as server:
        before = server.memory()
        with grpc.insecure_channel(server.address) as channel:
            large = pb.RecognizeRequest(image=bytes(30 << 20)).SerializeToString()
            stub: Any = channel.unary_unary(f"/{method}")
            calls = [stub.future(large, timeout=30) for _ in range(12)]
            most = before
            while not all(call.done() for call in calls):
                most = max(most, server.memory())
                time.sleep(0.01)
            assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
            assert most - before < 180 << 20  # half of what was sent; gRPC reads ahead of who asks
            assert read(server.address, token="secret") == "bad"
        assert re.search(r"UNAUTHENTICATED .*caller= peer=ipv4:127\.0\.0\.1:\d+ ", server.text())
