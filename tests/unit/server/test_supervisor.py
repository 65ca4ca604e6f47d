"""What each worker gets, and how long one that dies again and again is left alone."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from longhand_server import supervisor
from longhand_server.config import ListenConfig, ObserveConfig, RuntimeConfig, ServerConfig
from longhand_server.supervisor import Supervisor


@pytest.mark.parametrize(("first", "third"), [(-1, -1), (0, 0), (9000, 9002)])
def test_each_worker_has_a_metrics_port_of_its_own(first: int, third: int) -> None:
    config = ServerConfig(observe=ObserveConfig(metrics_port=first), runtime=RuntimeConfig(device="cpu"))
    assert Supervisor(config)._worker_config(2, 1).observe.metrics_port == third


def test_workers_take_turns_on_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "count_gpus", lambda: 2)
    running = Supervisor(ServerConfig())
    devices = [running._worker_config(index, 1).runtime.device for index in range(4)]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


async def test_workers_get_all_the_time_that_their_calls_get(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    async def wait_for(work: asyncio.Future[object], seconds: float) -> object:
        waited.append(seconds)
        return await work

    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    config = ServerConfig(listen=ListenConfig(drain_delay_s=3.0, grace_s=20.0))
    assert await Supervisor(config)._stop([]) == 0
    assert waited == [23.0 + supervisor._PATIENCE_S]


class _Dead:
    """A worker that ends as soon as it is looked at."""

    async def wait(self) -> int:
        return 1


@pytest.mark.parametrize(("healthy_s", "pauses"), [(60.0, [2, 4, 5, 5]), (-1.0, [1, 1, 1, 1])])
async def test_a_worker_that_dies_at_once_is_started_again_later_and_later(
    healthy_s: float, pauses: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_HEALTHY_S", healthy_s)
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_S", 0.005)
    caplog.set_level(logging.ERROR, supervisor.__name__)
    running = Supervisor(ServerConfig())
    workers: dict[int, Any] = {0: _Dead()}
    monkeypatch.setattr(running, "_workers", workers)

    async def nothing(*_: object) -> list[str]:
        return []

    monkeypatch.setattr(running, "_start", nothing)
    monkeypatch.setattr(running, "_serves", nothing)
    watching = asyncio.create_task(running._watch(0, 1))
    async with asyncio.timeout(10):
        while len(caplog.records) < len(pauses):
            await asyncio.sleep(0.001)
    watching.cancel()
    waited = [cast(tuple[Any, ...], record.args)[2] for record in caplog.records[: len(pauses)]]
    assert waited == [pause / 1000 for pause in pauses]
