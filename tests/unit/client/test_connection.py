from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from longhand_client import RecognizerClient, ServerUnavailableError
from longhand_client.connection import Connection, Tls

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("localhost", "localhost:50051"),
        ("reader.example:8000", "reader.example:8000"),
        (":7000", "localhost:7000"),
        ("[::1]:7000", "[::1]:7000"),
        ("::1", "[::1]:50051"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
        (["127.0.0.1:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["127.0.0.1:1", "127.0.0.1:1"], "ipv4:127.0.0.1:1"),
        (["[::1]:7"], "ipv6:[::1]:7"),
    ],
)
def test_target(address: str | list[str], target: str) -> None:
    assert Connection(address=address).target() == target


@pytest.mark.parametrize(
    "address", ["localhost:7000", "127.1.2.3", "[::1]:7000", ["127.0.0.1:1", "localhost:2"]]
)
def test_no_proxy_for_this_machine(address: str | list[str]) -> None:
    assert ("grpc.enable_http_proxy", 0) in Connection(address=address).options()


def test_a_proxy_does_not_keep_a_client_from_its_own_machine(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with RecognizerClient(fake.address, retries=0) as client:
        assert client.recognize(b"text:ab").text == "ab"


@pytest.mark.parametrize(
    "address", ["reader.example", "localhost.example:7000", "dns:///reader.example:7000"]
)
def test_other_machines_may_lie_behind_a_proxy(address: str) -> None:
    assert "grpc.enable_http_proxy" not in dict(Connection(address=address).options())


def test_a_client_s_own_certificate_and_key_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[bytes, ...]] = []
    monkeypatch.setattr(grpc, "ssl_channel_credentials", lambda *parts: given.append(parts))
    root, key, chain = (b"-----BEGIN " + name for name in (b"ROOT", b"KEY", b"CHAIN"))
    tls = Tls(root_certificates=root, private_key=key, certificate_chain=chain)
    Connection(tls=tls).credentials()
    assert given == [(root, key, chain)]


@pytest.mark.parametrize(("retries", "attempts"), [(0, None), (1, 2), (4, 5), (9, 5)])
def test_calls_of_every_kind_are_tried_as_often_as_asked_for(retries: int, attempts: int | None) -> None:
    options = dict(Connection(retries=retries).options())
    assert options["grpc.enable_retries"] == int(retries > 0)
    (config,) = json.loads(options["grpc.service_config"]).get("methodConfig", [None])
    if attempts is None:
        assert config is None
        return
    assert config["retryPolicy"]["maxAttempts"] == attempts  # gRPC allows five
    assert set(config["retryPolicy"]["retryableStatusCodes"]) == {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    names = {f"{name['service']}/{name['method']}" for name in config["name"]}
    service = "longhand.v1.RecognitionService"
    assert names == {
        f"{service}/{name}" for name in ("Recognize", "BatchRecognize", "ListModels", "GetModel")
    }


@pytest.mark.parametrize("address", ["", " ", "host:port", "host:0", "host:65536", []])
def test_addresses_that_make_no_sense(address: str | list[str]) -> None:
    with pytest.raises(ValueError, match="address: got"):
        RecognizerClient(address)


class _WebServer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_server_of_another_kind_is_called_that() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WebServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"127.0.0.1:{server.server_port}"
        try:
            with RecognizerClient(address, retries=0, timeout_s=20) as client:
                problem = f"what answers at {address} is no Longhand server"
                with pytest.raises(ServerUnavailableError, match=problem):
                    client.models()
        finally:
            server.shutdown()
            thread.join()


def test_calls_take_turns_among_several_servers(fake: FakeServer, second: FakeServer) -> None:
    with RecognizerClient([fake.address, second.address]) as client:
        for _ in range(20):
            client.recognize(b"text:ab")
    counts = len(fake.servicer.requests), len(second.servicer.requests)
    assert sum(counts) == 20
    assert min(counts) >= 5


def test_a_token_is_taken_without_the_end_of_its_line() -> None:
    assert Connection(token="abc\n").metadata == (("authorization", "Bearer abc"),)


@pytest.mark.parametrize("token", ["", " \n", "a b", "a\nb", "\u00e9"])
def test_tokens_that_make_no_sense(token: str) -> None:
    with pytest.raises(ValueError, match="token: got"):
        RecognizerClient(token=token)


@pytest.mark.parametrize("size", [300_000, 900_000])
def test_large_images_are_tried_again_too(fake: FakeServer, size: int) -> None:
    fake.servicer.failures_left = 2
    with RecognizerClient(fake.address) as client:
        assert client.recognize(b"text:" + b"a" * size).text == "a" * size
    assert len(fake.servicer.requests) == 3
