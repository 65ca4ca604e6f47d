"""One real server, on a real port, for all integration tests; what says `engine` runs against Ray Serve as well."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
import pytest_asyncio

from helpers.ray_process import RayProcess, ray_config
from helpers.server_process import ServerProcess
from helpers.toy_model import write_bundle
from helpers.web_process import free_port
from longhand.v1 import recognition_pb2_grpc

Engine: TypeAlias = ServerProcess | RayProcess


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


@pytest.fixture(scope="session")
def ray_server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayProcess]:
    """Ray Serve with the toy model: two gateways, two replicas that read."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed here: make test-scale brings it")
    config = ray_config(toy_bundle, free_port(), replicas=2)
    with RayProcess(config, tmp_path_factory.mktemp("ray")) as running:
        yield running


@pytest.fixture(scope="session", params=["server", pytest.param("ray_server", marks=pytest.mark.scale)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """The plain server, and Ray Serve: one service to its clients."""
    running: Engine = request.getfixturevalue(request.param)
    return running


@pytest_asyncio.fixture
async def stub(engine: Engine) -> AsyncIterator[recognition_pb2_grpc.RecognitionServiceAsyncStub]:
    """The service, on either of them."""
    async with grpc.aio.insecure_channel(engine.address) as channel:
        yield recognition_pb2_grpc.RecognitionServiceStub(channel)
