from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from longhand_client import RecognizerClient
from longhand_client.connection import Connection

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


@pytest.mark.parametrize("address", ["", " ", "host:port", "host:0", "host:70000", []])
def test_addresses_that_make_no_sense(address: str | list[str]) -> None:
    with pytest.raises(ValueError, match="address: got"):
        RecognizerClient(address)


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
