"""TLS with a certificate made for the test by the openssl program (part of a Debian with Python)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from helpers.fake_service import FakeServicer, running_server
from longhand.v1 import recognition_pb2_grpc as rpc
from longhand_client import RecognizerClient, ServerUnavailableError, Tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate(folder: Path, name: str, *, expired: bool = False) -> tuple[bytes, bytes]:
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    _openssl("req", "-x509", *curve, *names, "-days", "2", "-keyout", str(key), "-out", str(chain))
    if expired:
        _openssl("x509", "-in", str(chain), "-signkey", str(key), "-days", "-1", "-out", str(chain))
    return key.read_bytes(), chain.read_bytes()


@contextmanager
def tls_server(key: bytes, chain: bytes) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    rpc.add_RecognitionServiceServicer_to_server(FakeServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_encrypted_call_with_another_name(tmp_path: Path) -> None:
    key, chain = certificate(tmp_path, "reader.example")
    trusted = Tls(root_certificates=chain, server_name="reader.example")
    with tls_server(key, chain) as address, RecognizerClient(address, tls=trusted) as client:
        assert client.recognize(b"text:secret").text == "secret"


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    stranger = Tls(root_certificates=certificate(tmp_path, "other.example")[1], server_name="reader.example")
    with (
        tls_server(*certificate(tmp_path, "reader.example")) as address,
        RecognizerClient(address, tls=stranger, retries=0) as client,
        pytest.raises(ServerUnavailableError, match="not one that is trusted here") as caught,
    ):
        client.recognize(b"text:secret")
    assert caught.value.reason == "TLS"


def test_an_expired_certificate_is_named_as_such(tmp_path: Path) -> None:
    key, chain = certificate(tmp_path, "reader.example", expired=True)
    trusted = Tls(root_certificates=chain, server_name="reader.example")
    with (
        tls_server(key, chain) as address,
        RecognizerClient(address, tls=trusted, retries=0) as client,
        pytest.raises(ServerUnavailableError, match="the server's certificate has expired"),
    ):
        client.recognize(b"text:secret")


def test_a_certificate_from_the_future_is_named_as_such(tmp_path: Path) -> None:
    """As where a machine's clock is slow."""
    certificate(tmp_path, "reader.example")
    key, request, chain = (tmp_path / name for name in ("reader.example.key", "request", "chain.pem"))
    settings = tmp_path / "settings"
    settings.write_text(
        "[ca]\ndefault_ca=here\n[here]\ndefault_md=sha256\npolicy=any\nrand_serial=yes\n"
        f"database={tmp_path}/index\nnew_certs_dir={tmp_path}\n[any]\ncommonName=supplied\n"
    )
    (tmp_path / "index").touch()
    _openssl("req", "-new", "-key", str(key), "-subj", "/CN=reader.example", "-out", str(request))
    files = ["-config", str(settings), "-in", str(request), "-keyfile", str(key), "-out", str(chain)]
    times = ["-startdate", "20990101000000Z", "-enddate", "20990201000000Z"]
    _openssl("ca", "-batch", "-selfsign", "-notext", *files, *times)
    trusted = Tls(root_certificates=chain.read_bytes(), server_name="reader.example")
    with (
        tls_server(key.read_bytes(), chain.read_bytes()) as address,
        RecognizerClient(address, tls=trusted, retries=0) as client,
        pytest.raises(ServerUnavailableError, match="not valid yet; is this machine's clock right"),
    ):
        client.recognize(b"text:secret")


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    key, chain = certificate(tmp_path, "reader.example")
    with (
        tls_server(key, chain) as address,
        RecognizerClient(address, tls=Tls(root_certificates=chain), retries=0) as client,
        pytest.raises(ServerUnavailableError, match="the server's certificate is for another name"),
    ):
        client.recognize(b"text:secret")


def test_encryption_towards_a_plain_port() -> None:
    with (
        running_server() as fake,
        RecognizerClient(fake.address, tls=Tls(), retries=0) as client,
        pytest.raises(
            ServerUnavailableError, match=f"{fake.address} over TLS: the server there does not speak TLS"
        ),
    ):
        client.recognize(b"text:secret")


def test_plain_text_to_an_encrypted_port(tmp_path: Path) -> None:
    with (
        tls_server(*certificate(tmp_path, "reader.example")) as address,
        RecognizerClient(address, retries=0) as client,
        pytest.raises(ServerUnavailableError, match=f"answers at {address} .*it may ask for TLS"),
    ):
        client.recognize(b"text:secret")
