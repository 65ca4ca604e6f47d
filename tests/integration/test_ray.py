"""What only Ray Serve has: replicas that die while clients call. What it shares with the plain server, the tests that
say `engine` show.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.ray_process import RayProcess
from helpers.toy_model import ALPHABET, draw_image
from longhand_client import RecognizerClient

pytestmark = pytest.mark.scale
# Calls that are open at a time, so that every replica has some when it is killed.
_CALLERS = 6
_TEXTS = [
    "".join(random.Random(seed).choices(ALPHABET.replace(" ", ""), k=3 + seed % 9)) for seed in range(40)
]


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    return {text: draw_image(text) for text in _TEXTS}


def wait_for_replicas(ray_server: RayProcess, deployment: str, gone: int) -> None:
    """Until there are two again, none of them the one that was killed."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        pids = ray_server.replicas(deployment)
        if len(pids) >= 2 and gone not in pids:
            return
        time.sleep(0.5)
    raise AssertionError(f"{deployment}: {ray_server.replicas(deployment)} run 90 s after {gone} was killed")


def kill_one_of_each(ray_server: RayProcess) -> None:
    for deployment in ("Recognition", "Gateway"):
        victim = ray_server.replicas(deployment)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for_replicas(ray_server, deployment, victim)


def test_killing_replicas_loses_no_call(ray_server: RayProcess, images: dict[str, bytes]) -> None:
    stop = threading.Event()

    def call_until_stopped(seed: int) -> int:
        chooser, count = random.Random(seed), 0
        with RecognizerClient(ray_server.address, timeout_s=120, retries=4) as client:
            while not stop.is_set():
                text = chooser.choice(_TEXTS)
                assert client.recognize(images[text]).text == text
                count += 1
        return count

    with ThreadPoolExecutor(_CALLERS) as pool:
        callers = [pool.submit(call_until_stopped, seed) for seed in range(_CALLERS)]
        try:
            kill_one_of_each(ray_server)
        finally:
            stop.set()
        counts = [caller.result() for caller in callers]
    assert min(counts) > 0
    print(f"{sum(counts)} calls were answered")


def test_killing_replicas_loses_no_image_of_a_stream(
    ray_server: RayProcess, images: dict[str, bytes]
) -> None:
    stop = threading.Event()
    sent: list[str] = []

    def source() -> Iterator[bytes]:
        chooser = random.Random(7)
        while not stop.is_set():
            sent.append(chooser.choice(_TEXTS))
            yield images[sent[-1]]

    def read_stream() -> list[str]:
        with RecognizerClient(ray_server.address, timeout_s=120, retries=4) as client:
            return [one.result().text for one in client.recognize_stream(source(), look_ahead=16)]

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_stream)
        try:
            kill_one_of_each(ray_server)
        finally:
            stop.set()
        assert reading.result() == sent
    assert sent


def test_the_health_service_knows_its_service(ray_server: RayProcess) -> None:
    with grpc.insecure_channel(ray_server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "longhand.v1.RecognitionService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="'other' is not served here"):
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
        with pytest.raises(grpc.RpcError, match="on Ray Serve ask with Check"):
            list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=10))
