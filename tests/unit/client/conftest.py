from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.fake_service import FakeServer, running_server
from helpers.stream_reading import ReadAll, read_all_async, read_all_sync


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def second() -> Iterator[FakeServer]:
    with running_server() as server:
        yield server


@pytest.fixture(params=[read_all_sync, read_all_async], ids=["sync", "async"])
def read_all(request: pytest.FixtureRequest) -> ReadAll:
    reader: ReadAll = request.param
    return reader


@pytest.fixture(params=[True, False], ids=["groups", "older"])
def knows_groups(request: pytest.FixtureRequest, fake: FakeServer) -> bool:
    fake.servicer.stream_knows_groups = request.param
    return fake.servicer.stream_knows_groups
