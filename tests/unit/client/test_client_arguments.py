"""What a client is made with: what makes no sense is refused at once, in words."""

from __future__ import annotations

import inspect
import math
import pydoc
import re
from typing import TYPE_CHECKING, Any

import pytest

from longhand_client import (
    AsyncRecognizerClient,
    RecognitionOptions,
    RecognizerClient,
    ServerUnavailableError,
    Tls,
)
from longhand_client.bench.load import Load
from longhand_client.command.arguments import read_parser
from longhand_client.connection import Connection
from longhand_client.errors import InvalidRequestError
from longhand_client.options import options_to_proto
from longhand_web.gateway import GatewayConfig

if TYPE_CHECKING:
    from helpers.fake_service import FakeServer

PEM = b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"private_key": PEM}, "private_key and certificate_chain go together"),  # gRPC would end the program
        ({"certificate_chain": PEM}, "private_key and certificate_chain go together"),
        ({"root_certificates": b"x"}, "root_certificates: need the bytes of a PEM file"),
        ({"root_certificates": PEM.decode()}, "root_certificates: need the bytes of a PEM file"),
    ],
)
def test_certificates_that_are_none(keywords: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Tls(**keywords)


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"address": ("localhost", 50051)}, "need 'HOST:PORT', or a list of them"),
        ({"address": b"localhost:50051"}, "need 'HOST:PORT', or a list of them"),
        ({"address": None}, "got None, need 'HOST:PORT'"),
        ({"address": 50051}, "got 50051, need 'HOST:PORT'"),
        ({"token": b"secret"}, "token: got no text"),
        ({"max_image_bytes": 0}, "max_image_bytes: got 0, need a whole number"),
        ({"max_image_bytes": "4M"}, "max_image_bytes: got '4M', need a whole number"),
        ({"timeout_s": None}, "timeout_s: got None, need seconds, more than 0"),
        ({"timeout_s": -1}, "timeout_s: got -1, need seconds, more than 0"),
        ({"timeout_s": math.nan}, "timeout_s: got nan"),
        ({"tls": True}, r"tls: got True, need Tls\(\)"),
        ({"retries": 2.5}, "retries: got 2.5, need a whole number"),
        ({"retries": None}, "retries: got None, need a whole number"),
        ({"retries": -1}, "retries: got -1, need a whole number"),
        ({"keepalive_s": 0}, "keepalive_s: got 0, need seconds, more than 0"),
        ({"keepalive_s": math.nan}, "keepalive_s: got nan"),
    ],
)
@pytest.mark.parametrize("kind", [RecognizerClient, AsyncRecognizerClient])
def test_connections_that_make_no_sense(kind: Any, keywords: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kind(**keywords)


@pytest.mark.parametrize("kind", [RecognizerClient, AsyncRecognizerClient])
def test_help_names_and_explains_every_argument(kind: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(kind))
    arguments = list(inspect.signature(kind).parameters)
    assert arguments[:2] == ["address", "timeout_s"]
    assert "channel" in arguments
    for name in arguments:
        assert re.search(rf"^[ |]*{name}: ", shown, re.MULTILINE), name


def test_secrets_stay_out_of_logs() -> None:
    tls = Tls(private_key=PEM + b"s3cret", certificate_chain=PEM)
    for kind in (Connection, Load, GatewayConfig):
        shown = repr(kind(address="localhost", tls=tls, token="s3cret"))
        assert "localhost" in shown
        assert "s3cret" not in shown


def test_options_can_be_keys_of_a_cache() -> None:
    same = [RecognitionOptions(hotwords={"Anna": 2.0}, alternatives=3) for _ in range(2)]
    assert len({*same, RecognitionOptions(hotwords={"Berta": 2.0}, alternatives=3)}) == 2


def test_keepalive_may_be_never() -> None:
    options = dict(Connection(keepalive_s=math.inf).options())
    assert 10**8 < options["grpc.keepalive_time_ms"] < 2**31


def test_options_of_another_kind() -> None:
    with pytest.raises(InvalidRequestError, match=r"got dict, need RecognitionOptions"):
        options_to_proto({"alternatives": 3})  # type: ignore[arg-type]


def test_damaged_certificates_are_told(fake: FakeServer) -> None:
    with (
        RecognizerClient(fake.address, tls=Tls(root_certificates=PEM), retries=0, timeout_s=5) as client,
        pytest.raises(ServerUnavailableError, match="given here are unusable") as caught,
    ):
        client.health()
    assert caught.value.reason == "TLS"


def test_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in read_parser().format_help().splitlines() if len(line) > 80] == []
