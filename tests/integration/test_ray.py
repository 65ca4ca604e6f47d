"""What only Ray Serve has: replicas that die while clients call. What it shares with the plain server, the tests that
say `engine` show.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.ray_process import RayProcess, ray_config
from helpers.toy_model import ALPHABET, draw_image
from helpers.web_process import free_port
from longhand_client import AuthenticationError, InvalidImageError, InvalidRequestError, RecognizerClient

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


def test_load_adds_a_replica_and_strangers_are_refused(
    toy_bundle: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    """A second configuration: tokens, small requests, and replicas by the number of ongoing requests."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"someone {hashlib.sha256(b'secret').hexdigest()}\n")
    config = ray_config(
        toy_bundle,
        free_port(),
        security={"token_file": str(tokens)},
        listen={"max_request_bytes": 4096, "max_batch_items": 2},
    )
    recognition = config["applications"][0]["deployments"][1]
    del recognition["num_replicas"]
    recognition["autoscaling_config"] = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "metrics_interval_s": 1,
        "look_back_period_s": 2,
    }
    with RayProcess(config, tmp_path / "ray") as running:
        with RecognizerClient(running.address, token="wrong") as stranger:
            with pytest.raises(AuthenticationError) as caught:
                stranger.recognize(images[_TEXTS[0]])
            assert caught.value.reason == "UNAUTHENTICATED"
        with RecognizerClient(running.address, token="secret", timeout_s=120) as client:
            with pytest.raises(InvalidImageError, match="larger than max"):
                client.recognize(bytes(5000))
            with pytest.raises(InvalidRequestError, match="got 3 images, need 1 to 2"):
                client.recognize_batch([b"x"] * 3)
            assert len(running.replicas("Recognition")) == 1
            end = time.monotonic() + 90
            with ThreadPoolExecutor(_CALLERS) as pool:
                while len(running.replicas("Recognition")) < 2:
                    assert time.monotonic() < end, "still one replica after 90 s of load"
                    texts = _TEXTS * 5
                    read = list(pool.map(lambda text: client.recognize(images[text]).text, texts))
                    assert read == texts


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
