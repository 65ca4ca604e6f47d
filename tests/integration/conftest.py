"""One real server, on a real port, for all integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from helpers.server_process import ServerProcess
from helpers.toy_model import write_bundle
from longhand.v1 import recognition_pb2_grpc


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model bundle that reads drawn bars; see helpers.toy_model."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the toy model."""
    with ServerProcess(toy_bundle, tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.stop() == 0


@pytest_asyncio.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the server."""
    async with grpc.aio.insecure_channel(server.address) as open_channel:
        yield open_channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> recognition_pb2_grpc.RecognitionServiceAsyncStub:
    """The service on the server."""
    return recognition_pb2_grpc.RecognitionServiceStub(channel)
