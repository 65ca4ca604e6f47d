from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.fake_service import FakeServer, running_server


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def second() -> Iterator[FakeServer]:
    with running_server() as server:
        yield server
